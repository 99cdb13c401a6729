//! What a record holds: the session, whose it is, and which of the provider's it is. Lengths are big-endian; there is one
//! way to write each record, and only that is read.

use crate::base::secret::Secret;
use crate::session::sealed::SealedSession;

/// A stored session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Its tokens and times.
    pub session: SealedSession,
    /// Provider and user, as one word: all sessions with the same word are one user's. Never empty.
    pub user: Box<str>,
    /// The provider's own id of the session, by which its tokens are refused when it has ended. Never empty.
    pub provider_session: Option<Box<str>>,
}

impl Record {
    /// `None`: a user or an id that no provider has.
    pub(super) fn to_bytes(&self) -> Option<Secret<Vec<u8>>> {
        let session = self.session.to_bytes();
        let session = session.expose();
        let id = self.provider_session.as_deref().unwrap_or_default();
        if self.user.is_empty() || self.provider_session.as_deref() == Some("") {
            return None;
        }
        // Room for all of it: growing would leave copies behind.
        let mut out = Vec::with_capacity(4 + self.user.len() + id.len() + session.len());
        for text in [&*self.user, id] {
            out.extend_from_slice(&u16::try_from(text.len()).ok()?.to_be_bytes());
            out.extend_from_slice(text.as_bytes());
        }
        out.extend_from_slice(session);
        Some(Secret::new(out))
    }

    pub(super) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (user, rest) = text(bytes)?;
        let (id, rest) = text(rest)?;
        Some(Self {
            user: Some(user).filter(|user| !user.is_empty())?.into(),
            provider_session: Some(id).filter(|id| !id.is_empty()).map(Into::into),
            session: SealedSession::from_bytes(rest)?,
        })
    }
}

fn text(bytes: &[u8]) -> Option<(&str, &[u8])> {
    let (length, rest) = bytes.split_first_chunk()?;
    let (text, rest) = rest.split_at_checked(u16::from_be_bytes(*length).into())?;
    Some((std::str::from_utf8(text).ok()?, rest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn record(user: &str, id: Option<&str>) -> Record {
        Record {
            session: SealedSession {
                access_token: Secret::new("ab".to_owned()),
                refresh_token: Some(Secret::new("c".to_owned())),
                expires_at: 1,
                created_at: 2,
                seen_at: 3,
            },
            user: user.into(),
            provider_session: id.map(Into::into),
        }
    }

    #[test]
    fn what_is_cut_short_or_of_nobody_is_no_record() {
        let bytes = record("user", Some("id")).to_bytes().unwrap();
        let bytes = bytes.expose();
        assert_eq!(bytes[..10], *b"\0\x04user\0\x02id");
        // The refresh token at the end may be left out, and then the session has none.
        for length in 0..bytes.len() - 1 {
            assert_eq!(Record::from_bytes(&bytes[..length]), None, "{length}");
        }
        assert_eq!(
            Record::from_bytes(&[&[0, 0][..], &bytes[6..]].concat()),
            None
        );
        assert!(record("", None).to_bytes().is_none());
        assert!(record("user", Some("")).to_bytes().is_none());
        assert!(record(&"x".repeat(65_536), None).to_bytes().is_none());
    }

    proptest! {
        #[test]
        fn records_come_back_as_they_were(user in "\\PC{1,40}", id in prop::option::of("\\PC{1,40}")) {
            let record = record(&user, id.as_deref());
            let bytes = record.to_bytes().unwrap();
            prop_assert_eq!(Record::from_bytes(bytes.expose()), Some(record));
        }

        #[test]
        fn any_bytes_are_read_without_panic_and_in_one_way(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
            if let Some(record) = Record::from_bytes(&bytes) {
                let written = record.to_bytes().unwrap();
                prop_assert_eq!(written.expose(), &bytes);
            }
        }
    }
}
