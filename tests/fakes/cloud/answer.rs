//! What handlers answer with: XML, or why not.

use std::fmt::Display;

/// Why a request is not carried out, in the words of its service.
#[derive(Debug, Clone)]
pub(super) struct Refusal {
    pub(super) code: String,
    pub(super) message: String,
    pub(super) status: u16,
    /// The `Reason` that EBS gives beside the code.
    pub(super) reason: Option<&'static str>,
}

/// What a handler ends with.
pub(super) type Outcome<T> = Result<T, Refusal>;

impl Refusal {
    /// A client's error.
    pub(super) fn new(code: impl Into<String>, message: impl Into<String>) -> Self {
        Self { code: code.into(), message: message.into(), status: 400, reason: None }
    }

    /// The same with another HTTP status.
    pub(super) fn status(mut self, status: u16) -> Self {
        self.status = status;
        self
    }

    /// The same with a reason.
    pub(super) fn because(mut self, reason: &'static str) -> Self {
        self.reason = Some(reason);
        self
    }
}

/// Ends a handler as a client's error.
pub(super) fn refuse<T>(code: impl Into<String>, message: impl Into<String>) -> Outcome<T> {
    Err(Refusal::new(code, message))
}

/// XML that is being written.
#[derive(Debug, Default)]
pub(super) struct Xml(String);

impl Xml {
    /// An element of text.
    pub(super) fn text(&mut self, name: &str, value: impl Display) -> &mut Self {
        self.0.push_str(&format!("<{name}>{}</{name}>", escape(&value.to_string())));
        self
    }

    /// The same, if there is something to say.
    pub(super) fn maybe(&mut self, name: &str, value: Option<impl Display>) -> &mut Self {
        if let Some(value) = value {
            self.text(name, value);
        }
        self
    }

    /// An element of elements.
    pub(super) fn within(&mut self, name: &str, write: impl FnOnce(&mut Self)) -> &mut Self {
        self.0.push_str(&format!("<{name}>"));
        write(self);
        self.0.push_str(&format!("</{name}>"));
        self
    }

    /// A list, as EC2 writes it.
    pub(super) fn list<T>(
        &mut self,
        name: &str,
        items: impl IntoIterator<Item = T>,
        write: impl Fn(&mut Self, T),
    ) -> &mut Self {
        self.within(name, |xml| {
            for item in items {
                xml.within("item", |xml| write(xml, item));
            }
        })
    }

    /// What was written.
    pub(super) fn into_string(self) -> String {
        self.0
    }
}

fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            // A parser would make a line feed of it.
            '\r' => escaped.push_str("&#13;"),
            c => escaped.push(c),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn xml_is_escaped() {
        let mut xml = Xml::default();
        xml.text("a", "1 < 2 & 3\r").maybe("b", None::<u8>).list("c", [1, 2], |xml, n| {
            xml.text("n", n);
        });
        let written = "<a>1 &lt; 2 &amp; 3&#13;</a><c><item><n>1</n></item><item><n>2</n></item></c>";
        assert_eq!(xml.into_string(), written);
    }
}
