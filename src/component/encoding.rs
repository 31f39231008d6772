//! Encodings of text in files, without byte order marks.

/// An encoding of text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Encoding {
    Utf8,
    Utf16 { big: bool },
    Utf32 { big: bool },
}

impl Encoding {
    /// An encoding by the name that documents have for it.
    pub(super) fn find(name: &str) -> Option<Self> {
        Some(match name.to_ascii_lowercase().as_str() {
            "utf8" | "utf-8" => Self::Utf8,
            "utf16" | "utf-16" | "utf16-le" | "utf-16-le" => Self::Utf16 { big: false },
            "utf16-be" | "utf-16-be" => Self::Utf16 { big: true },
            "utf32" | "utf-32" | "utf32-le" | "utf-32-le" => Self::Utf32 { big: false },
            "utf32-be" | "utf-32-be" => Self::Utf32 { big: true },
            _ => return None,
        })
    }

    /// A text in it.
    pub(super) fn encode(self, text: &str) -> Vec<u8> {
        match self {
            Self::Utf8 => text.as_bytes().to_vec(),
            Self::Utf16 { big: false } => text.encode_utf16().flat_map(u16::to_le_bytes).collect(),
            Self::Utf16 { big: true } => text.encode_utf16().flat_map(u16::to_be_bytes).collect(),
            Self::Utf32 { big: false } => text.chars().flat_map(|c| u32::from(c).to_le_bytes()).collect(),
            Self::Utf32 { big: true } => text.chars().flat_map(|c| u32::from(c).to_be_bytes()).collect(),
        }
    }

    /// The text that bytes are in it, if they are one. A byte order mark is no part of the text.
    pub(super) fn decode(self, bytes: &[u8]) -> Option<String> {
        let text = match self {
            Self::Utf8 => String::from_utf8(bytes.to_vec()).ok()?,
            Self::Utf16 { big } => {
                let units = units(bytes, if big { u16::from_be_bytes } else { u16::from_le_bytes })?;
                String::from_utf16(&units).ok()?
            }
            Self::Utf32 { big } => {
                let units = units(bytes, if big { u32::from_be_bytes } else { u32::from_le_bytes })?;
                units.into_iter().map(char::from_u32).collect::<Option<String>>()?
            }
        };
        Some(text.strip_prefix('\u{feff}').map(str::to_owned).unwrap_or(text))
    }
}

fn units<T, const N: usize>(bytes: &[u8], unit: impl Fn([u8; N]) -> T) -> Option<Vec<T>> {
    let (units, rest) = bytes.as_chunks::<N>();
    rest.is_empty().then(|| units.iter().map(|&bytes| unit(bytes)).collect())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded_to_the_same(text in "[^\u{feff}]\\PC{0,20}") {
            for name in ["utf8", "UTF-16", "utf16-BE", "utf-32", "utf32-BE"] {
                let encoding = Encoding::find(name).unwrap();
                prop_assert_eq!(encoding.decode(&encoding.encode(&text)), Some(text.clone()));
            }
        }
    }

    #[test]
    fn what_is_no_text_is_none() {
        assert_eq!(Encoding::Utf8.decode(b"\xff"), None);
        assert_eq!(Encoding::Utf16 { big: false }.decode(b"abc"), None);
        assert_eq!(Encoding::Utf32 { big: true }.decode(&[0xff; 4]), None);
        assert_eq!(Encoding::Utf8.decode("\u{feff}x".as_bytes()).as_deref(), Some("x"));
    }
}
