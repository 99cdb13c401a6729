//! Which cookie of a session is which, by name alone; and which of those in a request are the session.

use super::{Form, PIECES_MAX, RawSession};

/// Which cookie of a key a name is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Slot {
    /// The key itself.
    Whole,
    /// `key.N`. The index is capped: what is larger than any piece we read is only a piece to remove.
    Piece(usize),
}

/// `N` is decimal without leading zeros, as the library writes it.
pub(super) fn slot(key: &[u8], name: &[u8]) -> Option<Slot> {
    match name.strip_prefix(key)? {
        [] => Some(Slot::Whole),
        [b'.', b'0'] => Some(Slot::Piece(0)),
        [b'.', digits @ ..] if digits.first() != Some(&b'0') => {
            let index = digits.iter().try_fold(0, |index: usize, digit| {
                digit
                    .is_ascii_digit()
                    .then(|| (index * 10 + usize::from(digit - b'0')).min(PIECES_MAX + 1))
            })?;
            (!digits.is_empty()).then_some(Slot::Piece(index))
        }
        _ => None,
    }
}

/// The cookies of one key: of each the first.
pub(super) struct Found<'a> {
    whole: Option<&'a [u8]>,
    /// One more than is read, so that a session with too many is known as one.
    pieces: [Option<&'a [u8]>; PIECES_MAX + 1],
}

impl<'a> Found<'a> {
    pub(super) const NOTHING: Self = Self {
        whole: None,
        pieces: [None; PIECES_MAX + 1],
    };

    pub(super) fn keep(&mut self, slot: Slot, value: &'a [u8]) {
        match slot {
            Slot::Whole => {
                self.whole.get_or_insert(value);
            }
            Slot::Piece(index) => {
                if let Some(place) = self.pieces.get_mut(index) {
                    place.get_or_insert(value);
                }
            }
        }
    }

    /// Which of them are the session.
    pub(super) fn session(&self) -> Option<RawSession<'a>> {
        let mut pieces = [&[][..]; PIECES_MAX + 1];
        let mut count = 0;
        if let Some(whole) = self.whole.filter(|value| !value.is_empty()) {
            pieces[0] = whole;
            count = 1;
        } else {
            let present = self
                .pieces
                .iter()
                .map_while(|piece| piece.filter(|value| !value.is_empty()));
            for (place, piece) in pieces.iter_mut().zip(present) {
                *place = piece;
                count += 1;
            }
        }
        (count > 0).then_some(RawSession {
            form: Form::Object,
            pieces,
            count,
        })
    }
}
