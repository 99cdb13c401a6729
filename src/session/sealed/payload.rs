//! What is sealed, in as few bytes as possible: three times, the length of the access token, both tokens. Numbers are
//! big-endian. There is one way to write each session, and only that is read.

use crate::base::secret::Secret;

/// Times of 8 bytes each, and a length of 4.
const HEAD_BYTES: usize = 3 * 8 + 4;

/// The session that a sealed cookie holds. Times are Unix seconds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SealedSession {
    /// Never empty.
    pub access_token: Secret<String>,
    /// `None`: this session cannot be refreshed. Never empty.
    pub refresh_token: Option<Secret<String>>,
    /// When the access token expires.
    pub expires_at: u64,
    /// When the session began: `max_age` counts from here.
    pub created_at: u64,
    /// When the session was last seen, as far as the cookie knows: `idle_timeout` counts from here.
    pub seen_at: u64,
}

impl SealedSession {
    pub(in crate::session) fn to_bytes(&self) -> Secret<Vec<u8>> {
        let access = self.access_token.expose().as_bytes();
        let refresh = self.refresh_token.as_ref();
        let refresh = refresh.map_or(&[][..], |token| token.expose().as_bytes());
        // Room for all of it: growing would leave copies behind.
        let mut out = Vec::with_capacity(HEAD_BYTES + access.len() + refresh.len());
        for time in [self.expires_at, self.created_at, self.seen_at] {
            out.extend_from_slice(&time.to_be_bytes());
        }
        // A token of 4 GiB is refused when it does not fit into cookies, long before its length would matter.
        let length = u32::try_from(access.len()).unwrap_or(u32::MAX);
        out.extend_from_slice(&length.to_be_bytes());
        out.extend_from_slice(access);
        out.extend_from_slice(refresh);
        Secret::new(out)
    }

    pub(in crate::session) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (expires_at, rest) = bytes.split_first_chunk()?;
        let (created_at, rest) = rest.split_first_chunk()?;
        let (seen_at, rest) = rest.split_first_chunk()?;
        let (length, tokens) = rest.split_first_chunk()?;
        let length = usize::try_from(u32::from_be_bytes(*length)).ok()?;
        let (access, refresh) = tokens.split_at_checked(length)?;
        let token = |bytes: &[u8]| {
            let text = std::str::from_utf8(bytes).ok()?;
            Some((!text.is_empty()).then(|| Secret::new(text.to_owned())))
        };
        Some(Self {
            access_token: token(access)??,
            refresh_token: token(refresh)?,
            expires_at: u64::from_be_bytes(*expires_at),
            created_at: u64::from_be_bytes(*created_at),
            seen_at: u64::from_be_bytes(*seen_at),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn session(access: &str, refresh: Option<&str>) -> SealedSession {
        SealedSession {
            access_token: Secret::new(access.to_owned()),
            refresh_token: refresh.map(|token| Secret::new(token.to_owned())),
            expires_at: 1,
            created_at: 2,
            seen_at: u64::MAX,
        }
    }

    #[test]
    fn the_bytes_are_these() {
        let bytes = session("ab", Some("c")).to_bytes();
        let expected = [
            &[0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 2][..],
            &[255; 8],
            &[0, 0, 0, 2],
            b"abc",
        ];
        assert_eq!(bytes.expose(), &expected.concat());
    }

    #[test]
    fn what_is_cut_short_or_is_no_text_is_no_session() {
        let bytes = session("ab", Some("é")).to_bytes();
        let bytes = bytes.expose();
        for length in 0..bytes.len() - 2 {
            assert!(
                SealedSession::from_bytes(&bytes[..length]).is_none(),
                "{length}"
            );
        }
        let only = SealedSession::from_bytes(&bytes[..bytes.len() - 2]).unwrap();
        assert_eq!(only.refresh_token, None);
        assert!(SealedSession::from_bytes(&bytes[..bytes.len() - 1]).is_none());
        let mut longer = bytes.clone();
        longer[HEAD_BYTES - 1] = 5;
        assert!(
            SealedSession::from_bytes(&longer).is_none(),
            "a length beyond the end"
        );
        longer[HEAD_BYTES - 1] = 0;
        assert!(
            SealedSession::from_bytes(&longer).is_none(),
            "no access token"
        );
    }

    proptest! {
        #[test]
        fn sessions_come_back_as_they_were(
            access in "\\PC{1,40}", refresh in prop::option::of("\\PC{1,40}"), times: [u64; 3],
        ) {
            let [expires_at, created_at, seen_at] = times;
            let session = SealedSession { expires_at, created_at, seen_at, ..session(&access, refresh.as_deref()) };
            prop_assert_eq!(SealedSession::from_bytes(session.to_bytes().expose()), Some(session));
        }

        #[test]
        fn any_bytes_are_read_without_panic_and_in_one_way(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
            if let Some(session) = SealedSession::from_bytes(&bytes) {
                let written = session.to_bytes();
                prop_assert_eq!(written.expose(), &bytes);
            }
        }
    }
}
