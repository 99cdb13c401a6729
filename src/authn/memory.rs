//! What a connection sent last, and what came of it. A browser sends the same fields again and again: bytes that are equal
//! need no decoding, no hash and no look-up.

use crate::exchange::{Credential, Verified};
use crate::headers::cookies::Rewritten;
use parking_lot::Mutex;
use std::sync::Arc;

/// Longest field that is remembered, in bytes. Larger ones are rare, and 20 000 connections have a memory each.
const FIELD_BYTES_MAX: usize = 16 * 1024;

/// What one connection remembers. Bounded: one credential and one Cookie field.
#[derive(Debug, Default)]
pub struct Memory {
    credential: Mutex<Option<Remembered<Known>>>,
    /// With the generation of the rules that it was rewritten by.
    cookies: Mutex<Option<Remembered<(u64, Rewritten)>>>,
}

/// What a field proved.
#[derive(Clone, Debug)]
pub(super) struct Known {
    pub(super) kind: Credential,
    pub(super) verified: Arc<Verified>,
    /// How many sessions had ended when it was proven.
    pub(super) ended: u64,
}

#[derive(Debug)]
struct Remembered<T> {
    field: Box<[u8]>,
    what: T,
}

impl Memory {
    /// Whether this very field proved something before. It may be over by now.
    pub(super) fn knows(&self, kind: Credential, field: &[u8]) -> bool {
        let slot = self.credential.lock();
        slot.as_ref()
            .is_some_and(|last| last.what.kind == kind && *last.field == *field)
    }

    /// What this very field proved before. The caller still compares expiry, epoch and ended sessions.
    pub(super) fn recall(&self, kind: Credential, field: &[u8]) -> Option<Known> {
        let slot = self.credential.lock();
        slot.as_ref()
            .filter(|last| last.what.kind == kind && *last.field == *field)
            .map(|last| last.what.clone())
    }

    /// Remembers it instead of what was there.
    pub(super) fn keep(&self, field: &[u8], what: Known) {
        keep(&self.credential, field, what);
    }

    /// The Cookie field without the session's cookies: as it was worked out for this very field before, under the rules of
    /// this `generation`, or by `rewrite` now.
    pub fn other_cookies(
        &self,
        generation: u64,
        field: &[u8],
        rewrite: impl FnOnce() -> Rewritten,
    ) -> Rewritten {
        if let Some(last) = self.cookies.lock().as_ref()
            && last.what.0 == generation
            && *last.field == *field
        {
            return last.what.1.clone();
        }
        let rewritten = rewrite();
        keep(&self.cookies, field, (generation, rewritten.clone()));
        rewritten
    }
}

fn keep<T>(slot: &Mutex<Option<Remembered<T>>>, field: &[u8], what: T) {
    if field.len() <= FIELD_BYTES_MAX {
        let field = field.into();
        *slot.lock() = Some(Remembered { field, what });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cookies_are_worked_out_once_for_a_field_and_its_rules() {
        let memory = Memory::default();
        let mut times = 0;
        let mut ask = |generation, field: &[u8]| {
            memory.other_cookies(generation, field, || {
                times += 1;
                Rewritten::Removed
            });
            times
        };
        assert_eq!(ask(1, b"a=1"), 1);
        assert_eq!(ask(1, b"a=1"), 1, "the same again");
        assert_eq!(ask(1, b"a=2"), 2, "another field");
        assert_eq!(ask(2, b"a=2"), 3, "other rules");
        let large = vec![b'a'; FIELD_BYTES_MAX + 1];
        assert_eq!(ask(2, &large), 4);
        assert_eq!(ask(2, &large), 5, "too large to remember");
    }
}
