//! Sizes as people write them.

use std::fmt;
use std::str::FromStr;

/// A size in bytes, written as `4GiB` or `512 MiB`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(pub u64);

/// A text that is no size.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no size: a whole number with a unit such as 512MiB or 4GiB is needed")]
pub struct Invalid(String);

/// Powers of two only: a gigabyte of 10⁹ bytes is never what somebody means who gives a machine memory or a disk.
const UNITS: [(&str, u32); 9] =
    [("KiB", 10), ("MiB", 20), ("GiB", 30), ("TiB", 40), ("K", 10), ("M", 20), ("G", 30), ("T", 40), ("B", 0)];

impl FromStr for Size {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let invalid = || Invalid(text.to_owned());
        let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let (number, unit) = text.split_at(digits);
        let (_, shift) = UNITS.iter().find(|(name, _)| *name == unit.trim()).ok_or_else(invalid)?;
        let number: u64 = number.parse().map_err(|_| invalid())?;
        number.checked_mul(1 << shift).map(Self).ok_or_else(invalid)
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fitting = UNITS[..4].iter().rev().find(|(_, shift)| self.0 > 0 && self.0.is_multiple_of(1 << shift));
        match fitting {
            Some((unit, shift)) => write!(f, "{}{unit}", self.0 >> shift),
            None => write!(f, "{}B", self.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_powers_of_two_with_a_unit() {
        let size = |text: &str| text.parse::<Size>().map(|size| size.0).ok();
        assert_eq!(size("4GiB"), Some(4 << 30));
        assert_eq!(size("512 MiB"), Some(512 << 20));
        assert_eq!(size("10G"), Some(10 << 30));
        for bad in ["", "4", "GiB", "-1GiB", "1.5GiB", "4GB", "99999999999999TiB", "4 Gi B"] {
            assert_eq!(size(bad), None, "{bad}");
        }
        for text in ["4GiB", "1536MiB", "17B", "0B"] {
            assert_eq!(text.parse::<Size>().unwrap().to_string(), text);
        }
    }
}
