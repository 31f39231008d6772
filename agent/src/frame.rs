//! Frames: a magic number, a length, a checksum and a payload.
//!
//! | bytes | what |
//! |---|---|
//! | 4 | [`MAGIC`] |
//! | 4 | length of the payload, little endian, at most [`MAX_PAYLOAD`] |
//! | 4 | CRC-32 of the payload, little endian |
//! | n | payload |
//!
//! A virtio-serial port outlives what speaks through it: a guest that is reset in the middle of a frame leaves half of
//! it in the host's socket. The magic number and the checksum let [`Decoder`] find the next whole frame.

/// Begins every frame.
pub const MAGIC: [u8; 4] = *b"GSM\x01";

/// Largest payload in bytes: bounds what one end can make the other allocate.
pub const MAX_PAYLOAD: usize = 256 * 1024;

const HEADER: usize = 12;

/// The payload is larger than [`MAX_PAYLOAD`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooLarge {
    /// Size of the payload in bytes.
    pub bytes: usize,
}

impl std::fmt::Display for TooLarge {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "a message of {} bytes exceeds the limit of {MAX_PAYLOAD}", self.bytes)
    }
}

impl std::error::Error for TooLarge {}

/// The payload as a frame.
pub fn encode(payload: &[u8]) -> Result<Vec<u8>, TooLarge> {
    let too_large = TooLarge { bytes: payload.len() };
    if payload.len() > MAX_PAYLOAD {
        return Err(too_large);
    }
    let length = u32::try_from(payload.len()).map_err(|_| too_large)?;
    let mut frame = Vec::with_capacity(HEADER + payload.len());
    frame.extend_from_slice(&MAGIC);
    frame.extend_from_slice(&length.to_le_bytes());
    frame.extend_from_slice(&crc32fast::hash(payload).to_le_bytes());
    frame.extend_from_slice(payload);
    Ok(frame)
}

/// Finds frames in a stream of bytes that arrive in any portions.
#[derive(Debug, Default)]
pub struct Decoder {
    buffer: Vec<u8>,
    skipped: u64,
}

impl Decoder {
    /// Takes the next bytes of the stream.
    pub fn extend(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The payload of the next whole frame, or `None` until more bytes arrive.
    pub fn next_frame(&mut self) -> Option<Vec<u8>> {
        loop {
            self.skip_to_magic();
            let (length, checksum) = self.header()?;
            if length > MAX_PAYLOAD {
                self.skip(1);
                continue;
            }
            let payload = self.buffer.get(HEADER..HEADER + length)?;
            if crc32fast::hash(payload) != checksum {
                self.skip(1);
                continue;
            }
            let payload = payload.to_vec();
            self.buffer.drain(..HEADER + length);
            return Some(payload);
        }
    }

    /// Forgets a frame that has begun but not ended: whoever was sending it is gone.
    pub fn reset(&mut self) {
        self.skip(self.buffer.len());
    }

    /// How many bytes belonged to no frame so far: none on a healthy port.
    pub fn skipped(&self) -> u64 {
        self.skipped
    }

    fn header(&self) -> Option<(usize, u32)> {
        let field = |at: usize| -> Option<u32> {
            let bytes = self.buffer.get(at..at + 4)?;
            Some(u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
        };
        let length = usize::try_from(field(4)?).ok()?;
        Some((length, field(8)?))
    }

    fn skip_to_magic(&mut self) {
        let start = (0..self.buffer.len()).find(|&at| {
            let rest = &self.buffer[at..];
            let n = rest.len().min(MAGIC.len());
            rest[..n] == MAGIC[..n]
        });
        self.skip(start.unwrap_or(self.buffer.len()));
    }

    fn skip(&mut self, bytes: usize) {
        self.buffer.drain(..bytes);
        self.skipped += bytes as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn decode_in_portions(stream: &[u8], portion: usize) -> (Vec<Vec<u8>>, u64) {
        let mut decoder = Decoder::default();
        let mut found = Vec::new();
        for bytes in stream.chunks(portion.max(1)) {
            decoder.extend(bytes);
            while let Some(payload) = decoder.next_frame() {
                found.push(payload);
            }
        }
        (found, decoder.skipped())
    }

    proptest! {
        #[test]
        fn frames_survive_any_portioning(
            payloads in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 0..8),
            portion in 1usize..64,
        ) {
            let stream: Vec<u8> = payloads.iter().flat_map(|p| encode(p).expect("small")).collect();
            let (found, skipped) = decode_in_portions(&stream, portion);
            prop_assert_eq!(found, payloads);
            prop_assert_eq!(skipped, 0);
        }

        #[test]
        fn a_frame_cut_by_a_reset_costs_no_later_frame(
            cut in prop::collection::vec(any::<u8>(), 1..200),
            keep in 0usize..100,
            next in prop::collection::vec(any::<u8>(), 0..200),
        ) {
            let mut stream = encode(&cut).expect("small");
            stream.truncate(keep.min(stream.len() - 1));
            // The cut frame's claimed length swallows what comes next, until so many bytes have come.
            for _ in 0..4 + 300 / (HEADER + next.len()) {
                stream.extend(encode(&next).expect("small"));
            }
            let (found, _) = decode_in_portions(&stream, 7);
            prop_assert!(found.contains(&next));
            // What comes next may be byte for byte what was cut off, and then nothing was.
            let is_whole = stream.starts_with(&encode(&cut).expect("small"));
            prop_assert!(found.iter().all(|payload| payload == &next || (is_whole && payload == &cut)));
        }

        #[test]
        fn noise_never_panics(noise in prop::collection::vec(any::<u8>(), 0..2000), portion in 1usize..64) {
            decode_in_portions(&noise, portion);
        }
    }

    #[test]
    fn a_payload_over_the_limit_is_refused() {
        assert_eq!(encode(&vec![0; MAX_PAYLOAD + 1]), Err(TooLarge { bytes: MAX_PAYLOAD + 1 }));
        assert!(encode(&vec![0; MAX_PAYLOAD]).is_ok());
    }

    #[test]
    fn a_claimed_length_over_the_limit_allocates_nothing_and_is_skipped() {
        let mut stream = MAGIC.to_vec();
        stream.extend_from_slice(&u32::MAX.to_le_bytes());
        stream.extend_from_slice(&[0; 4]);
        stream.extend(encode(b"after").expect("small"));
        let (found, skipped) = decode_in_portions(&stream, 5);
        assert_eq!(found, vec![b"after".to_vec()]);
        assert_eq!(skipped, 12);
    }
}
