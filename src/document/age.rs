//! Ages such as `7d`, `36h` or `1d 12h`.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// How old something may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Age(pub Duration);

/// An hour in seconds.
const HOUR: u64 = 3600;

impl Age {
    /// An age of so many days of 24 hours.
    pub const fn days(days: u64) -> Self {
        Self(Duration::from_secs(days * 24 * HOUR))
    }

    /// The age of something that was made at a time. What comes from the future is new.
    pub fn since(made: jiff::Timestamp, now: jiff::Timestamp) -> Self {
        Self(Duration::try_from(now.duration_since(made)).unwrap_or_default())
    }
}

impl FromStr for Age {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is no age; 7d, 36h and 90m are");
        let span: jiff::Span = text.parse().map_err(|_| wrong())?;
        let span = span.to_duration(jiff::SpanRelativeTo::days_are_24_hours()).map_err(|_| wrong())?;
        Duration::try_from(span).map(Self).map_err(|_| wrong())
    }
}

impl fmt::Display for Age {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.as_secs();
        match (seconds / (24 * HOUR), seconds / HOUR, seconds / 60) {
            (0, 0, 0) => write!(f, "{seconds}s"),
            (0, 0, minutes) => write!(f, "{minutes}m"),
            (days, hours, _) if days < 2 && hours % 24 != 0 || days == 0 => write!(f, "{hours}h"),
            (days, ..) => write!(f, "{days}d"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_are_read_and_shown() {
        let shown = |text: &str| text.parse::<Age>().map(|age| age.to_string());
        let ages = ["7d", "36h", "1d 12h", "90m", "5s", "24h", "0s", "49h"].map(|text| shown(text).unwrap());
        assert_eq!(ages, ["7d", "36h", "36h", "1h", "5s", "1d", "0s", "2d"]);
        for wrong in ["", "7", "seven days", "-1d", "1 month"] {
            assert!(shown(wrong).is_err(), "{wrong}");
        }
        assert_eq!("1d".parse::<Age>().unwrap(), Age::days(1));
    }
}
