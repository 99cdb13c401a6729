//! Where WebSocket frames begin and end (RFC 6455 §5.2): enough to put a frame of ours between two of the upstream's.
//! Payloads are not looked at.

/// The longest head of a frame: two bytes, eight of length, four of mask.
const HEAD_MAX: usize = 14;
const OPCODE_CLOSE: u8 = 0x8;
/// Bytes of a control frame's payload, at most (RFC 6455 §5.5); two are the code.
const CONTROL_MAX: usize = 125;

/// Follows one direction of a connection.
#[derive(Debug, Default)]
pub(super) struct Frames {
    head: [u8; HEAD_MAX],
    /// Bytes of `head` that are there.
    have: usize,
    /// Payload that is still to come.
    payload: u64,
    /// A close frame has begun.
    closing: bool,
}

impl Frames {
    /// Whether the last byte was the last of a frame.
    pub(super) fn at_boundary(&self) -> bool {
        self.have == 0 && self.payload == 0
    }

    /// Whether a close frame has passed, or begun to.
    pub(super) fn is_closing(&self) -> bool {
        self.closing
    }

    /// How many of these bytes there are until the end of the frame that they are in the middle of: all of them when
    /// they do not reach it, none at a boundary.
    pub(super) fn rest_of_frame(&self, bytes: &[u8]) -> usize {
        if self.at_boundary() {
            return 0;
        }
        let mut ahead = Self { ..*self };
        for at in 0..bytes.len() {
            if ahead.payload > 0 {
                let payload = usize::try_from(ahead.payload).unwrap_or(usize::MAX);
                return at.saturating_add(payload).min(bytes.len());
            }
            ahead.pass(&bytes[at..=at]);
            if ahead.at_boundary() {
                return at + 1;
            }
        }
        bytes.len()
    }

    /// These bytes went by.
    pub(super) fn pass(&mut self, mut bytes: &[u8]) {
        while let Some(&byte) = bytes.first() {
            if self.payload > 0 {
                let part = usize::try_from(self.payload)
                    .unwrap_or(usize::MAX)
                    .min(bytes.len());
                self.payload -= part as u64;
                bytes = &bytes[part..];
                continue;
            }
            self.head[self.have] = byte;
            self.have += 1;
            bytes = &bytes[1..];
            if let Some(payload) = self.head_is_complete() {
                self.closing |= self.head[0] & 0x0f == OPCODE_CLOSE;
                self.payload = payload;
                self.have = 0;
            }
        }
    }

    /// The length of the payload, when the head is there.
    fn head_is_complete(&self) -> Option<u64> {
        if self.have < 2 {
            return None;
        }
        let (mask, length) = (self.head[1] & 0x80 != 0, self.head[1] & 0x7f);
        let extended = match length {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        if self.have < 2 + extended + if mask { 4 } else { 0 } {
            return None;
        }
        if extended == 0 {
            return Some(u64::from(length));
        }
        let number = self.head[2..2 + extended].iter();
        Some(number.fold(0, |sum, byte| sum << 8 | u64::from(*byte)))
    }
}

/// A close frame from a server (RFC 6455 §5.5.1), not masked. A reason that is too long is left out.
pub(super) fn close(code: u16, reason: &str) -> Vec<u8> {
    let reason = if reason.len() > CONTROL_MAX - 2 {
        ""
    } else {
        reason
    };
    let length = u8::try_from(2 + reason.len()).unwrap_or(2);
    let mut frame = vec![0x80 | OPCODE_CLOSE, length];
    frame.extend_from_slice(&code.to_be_bytes());
    frame.extend_from_slice(reason.as_bytes());
    frame
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A frame with a payload of so many bytes.
    fn frame(opcode: u8, mask: bool, payload: usize) -> Vec<u8> {
        let mut frame = vec![0x80 | opcode];
        let bit = if mask { 0x80 } else { 0 };
        match payload {
            0..=125 => frame.push(bit | payload as u8),
            126..=65_535 => {
                frame.push(bit | 126);
                frame.extend((payload as u16).to_be_bytes());
            }
            _ => {
                frame.push(bit | 127);
                frame.extend((payload as u64).to_be_bytes());
            }
        }
        if mask {
            frame.extend([1, 2, 3, 4]);
        }
        frame.resize(frame.len() + payload, 0x88);
        frame
    }

    #[test]
    fn a_close_frame_is_known_by_its_head_alone() {
        let check = |bytes: &[u8], closing| {
            let mut frames = Frames::default();
            frames.pass(bytes);
            assert_eq!(frames.is_closing(), closing, "{bytes:?}");
        };
        check(&close(1001, "going away"), true);
        check(&frame(1, false, 200), false);
        check(&frame(2, false, 70_000), false);
        check(&[0x88], false);
        check(&[0x88, 0x02], true);
    }

    #[test]
    fn a_close_frame_of_ours_has_its_code_and_reason() {
        assert_eq!(close(1001, "ok"), [0x88, 4, 0x03, 0xe9, b'o', b'k']);
        assert_eq!(close(4401, &"x".repeat(124)).len(), 4);
        assert_eq!(close(4401, &"x".repeat(123)).len(), 127);
    }

    #[test]
    fn a_length_of_all_ones_does_not_overflow() {
        let mut frames = Frames::default();
        frames.pass(&[0x82, 127, 255, 255, 255, 255, 255, 255, 255, 255]);
        assert!(!frames.at_boundary());
        frames.pass(&[0; 1000]);
        assert_eq!(frames.rest_of_frame(&[0; 50]), 50);
    }

    proptest! {
        #[test]
        fn boundaries_are_found_however_the_bytes_are_cut(
            frames in prop::collection::vec((0_u8..11, any::<bool>(), prop_oneof![0_usize..130, 65_530_usize..65_540]), 1..6),
            cuts in prop::collection::vec(1_usize..5000, 1..20),
        ) {
            let mut bytes = Vec::new();
            let mut ends = vec![0];
            for (opcode, mask, payload) in frames {
                bytes.extend(frame(opcode, mask, payload));
                ends.push(bytes.len());
            }
            let (mut follows, mut at) = (Frames::default(), 0);
            for cut in cuts.iter().cycle() {
                let next = ends.iter().copied().find(|end| *end >= at).unwrap();
                prop_assert_eq!(follows.at_boundary(), next == at);
                prop_assert_eq!(follows.rest_of_frame(&bytes[at..]), next - at);
                if at == bytes.len() {
                    break;
                }
                let to = (at + cut).min(bytes.len());
                follows.pass(&bytes[at..to]);
                at = to;
            }
        }

        #[test]
        fn garbage_does_no_harm(bytes in prop::collection::vec(any::<u8>(), 0..2000)) {
            let mut frames = Frames::default();
            let rest = frames.rest_of_frame(&bytes);
            prop_assert!(rest <= bytes.len());
            frames.pass(&bytes);
        }
    }
}
