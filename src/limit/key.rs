//! Whose budget a request draws on: address bits, or a keyed 128-bit hash of what was verified. What nobody verified
//! chooses a budget only together with the address.

use super::local::Key;
use crate::config::value::{ClaimPath, LimitBy};
use crate::exchange::Verified;
use foldhash::quality::RandomState;
use http::{HeaderMap, HeaderName};
use serde_json::Value;
use std::hash::{BuildHasher, Hasher};
use std::net::IpAddr;
use std::sync::LazyLock;

/// What a request's key is made of.
#[derive(Clone, Copy, Debug)]
pub struct Who<'a> {
    /// The client's address.
    pub client: IpAddr,
    /// Whether the peer is a trusted proxy: only then does a header count without the address.
    pub peer_trusted: bool,
    /// The request's headers as they came.
    pub headers: &'a HeaderMap,
    /// The verified credential; `None` before authentication and for nobody.
    pub verified: Option<&'a Verified>,
}

/// Seeds of this process: a key means nothing elsewhere and cannot be made to collide from outside.
static SEEDS: LazyLock<[RandomState; 2]> =
    LazyLock::new(|| [RandomState::default(), RandomState::default()]);

/// Builds a key part by part.
struct Mix([<RandomState as BuildHasher>::Hasher; 2]);

impl Mix {
    fn new() -> Self {
        Self(SEEDS.each_ref().map(BuildHasher::build_hasher))
    }

    /// `kind` keeps parts of different meaning apart, the length keeps neighbours apart.
    fn add(&mut self, kind: u8, bytes: &[u8]) {
        for hasher in &mut self.0 {
            hasher.write_u8(kind);
            hasher.write_usize(bytes.len());
            hasher.write(bytes);
        }
    }

    fn end(self) -> u128 {
        let [high, low] = self.0.map(|hasher| hasher.finish());
        u128::from(high) << 64 | u128::from(low)
    }
}

/// Keyed 128-bit hash of a list of texts, for limits by something that only the caller knows (the account of a login).
/// Differs from process to process.
pub fn keyed(parts: &[&[u8]]) -> u128 {
    let mut mix = Mix::new();
    for part in parts {
        mix.add(KEYED, part);
    }
    mix.end()
}

/// The key of an account that somebody tries to log in to. Nobody has verified it, so whoever makes accounts up may fill
/// the table; newcomers then share budgets in 4096 groups, which nobody outside can tell.
pub(super) fn of_account(account: &str) -> Key {
    let exact = keyed(&[b"account", account.as_bytes()]);
    Key {
        exact,
        coarse: exact >> 116,
    }
}

const KEYED: u8 = 0;
const IP: u8 = 1;
const USER: u8 = 2;
const API_KEY: u8 = 3;
const CLAIM: u8 = 4;
const HEADER: u8 = 5;

impl Who<'_> {
    /// Whether a budget by address alone has nobody to be for: the peer is a unix socket that is not trusted to name its
    /// clients, or named none. One budget for all of them would let any of them lock out the others.
    pub(super) fn is_nowhere(&self, by: &[LimitBy]) -> bool {
        self.client.is_unspecified() && matches!(by, [LimitBy::Ip])
    }

    /// The key under these parts.
    pub(super) fn key(&self, by: &[LimitBy]) -> Key {
        if let [LimitBy::Ip] = by {
            return self.address();
        }
        let mut mix = Mix::new();
        let mut with_address = false;
        for part in by {
            with_address |= match part {
                // Who names an account is not a request: see [`of_account`].
                LimitBy::Ip | LimitBy::Account => true,
                LimitBy::User => !self.user(&mut mix),
                LimitBy::ApiKey => !(self.api_key(&mut mix) || self.user(&mut mix)),
                LimitBy::Claim(path) => !(self.claim(path, &mut mix) || self.user(&mut mix)),
                LimitBy::Header(name) => {
                    let there = self.header(name, &mut mix);
                    !(there && self.peer_trusted)
                }
            };
        }
        let address = self.address();
        if with_address {
            mix.add(IP, &address.exact.to_be_bytes());
        }
        Key {
            exact: mix.end(),
            coarse: if with_address { address.coarse } else { 0 },
        }
    }

    /// The address alone: IPv4 whole, IPv6 by /64; /24 and /48 when there are too many.
    pub(super) fn address(&self) -> Key {
        match self.client.to_canonical() {
            IpAddr::V4(ip) => {
                let bits = 0xffff << 32 | u128::from(ip.to_bits());
                Key {
                    exact: bits,
                    coarse: bits & !0xff,
                }
            }
            IpAddr::V6(ip) => Key {
                exact: ip.to_bits() & !0 << 64,
                coarse: ip.to_bits() & !0 << 80,
            },
        }
    }

    fn user(&self, mix: &mut Mix) -> bool {
        self.verified
            .map(|v| mix.add(USER, &v.user_key.to_be_bytes()))
            .is_some()
    }

    fn api_key(&self, mix: &mut Mix) -> bool {
        let identity = self.verified.map(|v| &v.identity);
        let Some((identity, id)) = identity.and_then(|i| Some((i, i.api_key_id.as_deref()?)))
        else {
            return false;
        };
        mix.add(API_KEY, identity.provider.as_bytes());
        mix.add(API_KEY, id.as_bytes());
        true
    }

    fn claim(&self, path: &ClaimPath, mix: &mut Mix) -> bool {
        let Some(identity) = self.verified.map(|v| &v.identity) else {
            return false;
        };
        let mut steps = path.0.iter();
        let mut value = steps.next().and_then(|step| identity.claims.get(&**step));
        for step in steps {
            value = value.and_then(|v| v.get(&**step));
        }
        // The same claim of two providers is not the same thing.
        mix.add(CLAIM, identity.provider.as_bytes());
        match value {
            None | Some(Value::Null) => return false,
            Some(Value::String(text)) => mix.add(CLAIM, text.as_bytes()),
            Some(other) => mix.add(CLAIM, other.to_string().as_bytes()),
        }
        true
    }

    fn header(&self, name: &HeaderName, mix: &mut Mix) -> bool {
        let mut there = false;
        for value in self.headers.get_all(name) {
            mix.add(HEADER, value.as_bytes());
            there = true;
        }
        there
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exchange::{Credential, Identity};
    use http::HeaderValue;
    use serde_json::json;

    fn verified(user_key: u128, api_key: Option<&str>, claims: Value) -> Verified {
        Verified {
            identity: Identity {
                provider: "main".into(),
                user_id: "u".into(),
                roles: Vec::new(),
                scopes: Vec::new(),
                claims: claims.as_object().cloned().unwrap(),
                expires_at: 0,
                session_id: None,
                anonymous: false,
                api_key_id: api_key.map(Into::into),
            },
            credential: Credential::Bearer,
            authorization: None,
            headers: Vec::new(),
            provider: 0,
            epoch: 0,
            renew_at: u64::MAX,
            kept: None,
            user_key,
            weight: 0,
        }
    }

    /// One request: address, tenant header, verified credential, whether its peer is trusted.
    fn key(
        by: &[LimitBy],
        ip: &str,
        tenant: Option<&str>,
        verified: Option<&Verified>,
        peer_trusted: bool,
    ) -> Key {
        let mut headers = HeaderMap::new();
        if let Some(tenant) = tenant {
            headers.insert("x-tenant", HeaderValue::from_str(tenant).unwrap());
        }
        Who {
            client: ip.parse().unwrap(),
            peer_trusted,
            headers: &headers,
            verified,
        }
        .key(by)
    }

    #[test]
    fn addresses_count_whole_for_ipv4_and_by_64_bits_for_ipv6() {
        let at = |ip| key(&[LimitBy::Ip], ip, None, None, false);
        assert_ne!(at("192.0.2.1").exact, at("192.0.2.2").exact);
        assert_eq!(at("192.0.2.1").coarse, at("192.0.2.200").coarse);
        assert_ne!(at("192.0.2.1").coarse, at("192.0.3.1").coarse);
        assert_eq!(at("192.0.2.1"), at("::ffff:192.0.2.1"));
        assert_eq!(at("2001:db8:0:1::1"), at("2001:db8:0:1:ffff::2"));
        assert_ne!(at("2001:db8:0:1::1").exact, at("2001:db8:0:2::1").exact);
        assert_eq!(at("2001:db8:0:1::1").coarse, at("2001:db8:0:2::1").coarse);
        assert_ne!(at("2001:db8:1::1").coarse, at("2001:db8:2::1").coarse);
    }

    #[test]
    fn a_user_has_one_budget_wherever_he_is_and_nobody_has_his_addresss() {
        let by = [LimitBy::User];
        let (ada, grace) = (verified(1, None, json!({})), verified(2, None, json!({})));
        let at = |ip, who| key(&by, ip, None, who, false);
        assert_eq!(at("192.0.2.1", Some(&ada)), at("192.0.2.2", Some(&ada)));
        assert_ne!(
            at("192.0.2.1", Some(&ada)).exact,
            at("192.0.2.1", Some(&grace)).exact
        );
        assert_ne!(at("192.0.2.1", None).exact, at("192.0.2.2", None).exact);
        assert_ne!(at("192.0.2.1", None).coarse, 0);
        assert_eq!(at("192.0.2.1", Some(&ada)).coarse, 0);
    }

    #[test]
    fn a_header_of_an_untrusted_peer_counts_with_its_address() {
        let by = [LimitBy::Header(HeaderName::from_static("x-tenant"))];
        let at = |ip, tenant, trusted| key(&by, ip, tenant, None, trusted).exact;
        assert_ne!(
            at("192.0.2.1", Some("a"), false),
            at("192.0.2.2", Some("a"), false)
        );
        assert_eq!(
            at("192.0.2.1", Some("a"), true),
            at("192.0.2.2", Some("a"), true)
        );
        assert_ne!(
            at("192.0.2.1", Some("a"), true),
            at("192.0.2.1", Some("b"), true)
        );
        assert_ne!(at("192.0.2.1", None, true), at("192.0.2.2", None, true));
    }

    #[test]
    fn keys_and_claims_fall_back_to_the_user_and_the_user_to_the_address() {
        let with_key = verified(1, Some("k1"), json!({"org": {"id": 7}}));
        let other_user = verified(2, Some("k1"), json!({"org": {"id": 7}}));
        let bare = verified(1, None, json!({"org": {"id": null}}));
        let other_bare = verified(2, None, json!({"org": 7}));
        for by in [
            LimitBy::ApiKey,
            LimitBy::Claim(ClaimPath(vec!["org".into(), "id".into()])),
        ] {
            let by = [by];
            let at = |ip, who| key(&by, ip, None, who, false).exact;
            assert_eq!(
                at("192.0.2.1", Some(&with_key)),
                at("192.0.2.2", Some(&other_user))
            );
            assert_eq!(at("192.0.2.1", Some(&bare)), at("192.0.2.2", Some(&bare)));
            assert_ne!(
                at("192.0.2.1", Some(&bare)),
                at("192.0.2.1", Some(&other_bare))
            );
            assert_ne!(at("192.0.2.1", None), at("192.0.2.2", None));
        }
    }

    #[test]
    fn a_list_is_one_key_of_all_its_parts() {
        let by = [LimitBy::Ip, LimitBy::User];
        let ada = verified(1, None, json!({}));
        let grace = verified(2, None, json!({}));
        let at = |ip, who| key(&by, ip, None, Some(who), false).exact;
        assert_eq!(at("192.0.2.1", &ada), at("192.0.2.1", &ada));
        assert_ne!(at("192.0.2.1", &ada), at("192.0.2.2", &ada));
        assert_ne!(at("192.0.2.1", &ada), at("192.0.2.1", &grace));
        assert_ne!(keyed(&[b"ab", b"c"]), keyed(&[b"a", b"bc"]));
        // Two seeds: the halves are not one hash twice.
        assert_ne!(keyed(&[b"a"]) >> 64, keyed(&[b"a"]) & u128::from(u64::MAX));
    }
}
