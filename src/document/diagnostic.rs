//! What is wrong with a document, and where.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use super::syntax::Source;

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// The document is used all the same.
    Warning,
    /// It is not.
    Error,
}

/// One thing that is wrong with a document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    /// How bad it is.
    pub severity: Severity,
    /// What is wrong: a sentence without a full stop.
    pub message: String,
    /// Which bytes of the source are meant.
    pub span: Range<usize>,
    /// What to write instead.
    pub help: Option<String>,
}

/// All that is wrong with a document.
#[derive(Debug, Clone)]
pub struct Report {
    /// The document.
    pub source: Arc<Source>,
    /// What is wrong, in the order of the source.
    pub diagnostics: Vec<Diagnostic>,
}

impl Report {
    /// Whether the document can't be used.
    pub fn has_errors(&self) -> bool {
        self.diagnostics.iter().any(|diagnostic| diagnostic.severity == Severity::Error)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, diagnostic) in self.diagnostics.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            let place = self.source.position(diagnostic.span.start);
            let severity = match diagnostic.severity {
                Severity::Warning => "warning",
                Severity::Error => "error",
            };
            write!(f, "{}:{}:{}: {severity}: ", self.source.name, place.line, place.column)?;
            f.write_str(&diagnostic.message)?;
            if let Some(help) = &diagnostic.help {
                write!(f, " ({help})")?;
            }
        }
        Ok(())
    }
}

impl std::error::Error for Report {}
