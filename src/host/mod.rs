//! What every stage asks of this machine: child processes that can't outlive us, and files that are whole or absent.

pub mod address;
pub mod file;
pub mod process;

/// An error and its causes, the first line of each.
pub fn one_line(error: &dyn std::error::Error) -> String {
    let first_line = |text: String| text.lines().next().unwrap_or_default().to_owned();
    let mut reason = first_line(error.to_string());
    let mut cause = error.source();
    while let Some(error) = cause {
        let text = first_line(error.to_string());
        // Transparent errors say the same twice.
        if !reason.contains(&text) {
            reason = format!("{reason}: {text}");
        }
        cause = error.source();
    }
    reason
}
