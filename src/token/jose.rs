//! The shape of a compact JWS (RFC 7515 §3.1, §7.1): three base64url segments and a header we understand whole.
//! No key is touched and no claim is believed here. Everything a header could use to bring its own key (`jwk`, `jku`,
//! `x5u`, `x5c`, `x5t`) is ignored unread.

use super::json;
use super::verify::Reason;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::Algorithm;
use serde_json::Value;

/// Longest `kid` that is looked up, in bytes.
pub const MAX_KID_BYTES: usize = 256;

/// A token taken apart, nothing of it verified.
#[derive(Debug)]
pub struct Jws<'a> {
    /// Names the algorithm; the key decides whether it may.
    pub algorithm: Algorithm,
    /// At most [`MAX_KID_BYTES`].
    pub kid: Option<Box<str>>,
    /// The decoded payload.
    pub payload: Vec<u8>,
    /// What was signed: header and payload as they came, with the dot between.
    pub signed: &'a [u8],
    /// The signature as it came, in base64url.
    pub signature: &'a str,
}

impl<'a> Jws<'a> {
    /// Takes `token` apart. The caller has bounded its size.
    pub fn parse(token: &'a [u8]) -> Result<Self, Reason> {
        let text = std::str::from_utf8(token).map_err(|_| Reason::Shape)?;
        let mut segments = text.split('.');
        let (Some(header), Some(payload), Some(signature), None) = (
            segments.next(),
            segments.next(),
            segments.next(),
            segments.next(),
        ) else {
            return Err(Reason::Shape);
        };
        // All of the shape before any of the sense. The signature is decoded only to see that it is canonical: two spellings
        // of one would be two cache entries.
        let (head, body) = (decode(header)?, decode(payload)?);
        decode(signature)?;
        let (algorithm, kid) = read_header(&head)?;
        Ok(Self {
            algorithm,
            kid,
            payload: body,
            signed: &token[..header.len() + 1 + payload.len()],
            signature,
        })
    }
}

/// Strict base64url: no padding, no white space, no `+` or `/`, unused bits zero (RFC 4648 §3.5).
fn decode(segment: &str) -> Result<Vec<u8>, Reason> {
    URL_SAFE_NO_PAD.decode(segment).map_err(|_| Reason::Shape)
}

fn read_header(bytes: &[u8]) -> Result<(Algorithm, Option<Box<str>>), Reason> {
    let header = json::object(bytes).ok_or(Reason::Header)?;
    // We implement no extension, so every `crit` names one that we do not (RFC 7515 §4.1.11).
    if header.contains_key("crit") || header.contains_key("b64") {
        return Err(Reason::Critical);
    }
    let algorithm = match header.get("alg") {
        Some(Value::String(name)) => algorithm(name).ok_or(Reason::Algorithm)?,
        _ => return Err(Reason::Algorithm),
    };
    match header.get("typ") {
        None => {}
        Some(Value::String(typ)) if is_access_token_type(typ) => {}
        Some(_) => return Err(Reason::Type),
    }
    let kid = match header.get("kid") {
        None => None,
        Some(Value::String(kid)) if kid.len() <= MAX_KID_BYTES => Some(kid.as_str().into()),
        Some(_) => return Err(Reason::KeyId),
    };
    Ok((algorithm, kid))
}

/// The algorithms we know by their registered names, exactly spelled. RFC 9864 calls EdDSA on this curve `Ed25519`.
pub fn algorithm(name: &str) -> Option<Algorithm> {
    if name == "Ed25519" {
        return Some(Algorithm::EdDSA);
    }
    name.parse().ok()
}

/// Whether `typ` is that of a JWT or an access token (RFC 9068 §2.1), and not that of a logout token, a security event
/// or a proof of possession (RFC 8725 §3.11). Media types compare without case, `application/` may be left out.
fn is_access_token_type(typ: &str) -> bool {
    const PREFIX: &str = "application/";
    let name = match typ.get(..PREFIX.len()) {
        Some(prefix) if prefix.eq_ignore_ascii_case(PREFIX) => &typ[PREFIX.len()..],
        _ => typ,
    };
    name.eq_ignore_ascii_case("JWT") || name.eq_ignore_ascii_case("at+jwt")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(header: &str, expected: Result<(Algorithm, Option<&str>), Reason>) {
        let token = format!("{}.e30.AAAA", URL_SAFE_NO_PAD.encode(header));
        let got = Jws::parse(token.as_bytes()).map(|t| (t.algorithm, t.kid));
        let expected = expected.map(|(a, kid)| (a, kid.map(Box::from)));
        assert_eq!(got, expected, "{header}");
    }

    #[test]
    fn a_header_is_understood_whole_or_refused() {
        use Algorithm::ES256;
        for (header, expected) in [
            (r#"{"alg":"ES256"}"#, Ok((ES256, None))),
            (r#"{"alg":"ES256","kid":"k"}"#, Ok((ES256, Some("k")))),
            (r#"{"alg":"Ed25519"}"#, Ok((Algorithm::EdDSA, None))),
            (r#"{"alg":"ES256","typ":"JWT"}"#, Ok((ES256, None))),
            (r#"{"alg":"ES256","typ":"jwt"}"#, Ok((ES256, None))),
            (r#"{"alg":"ES256","typ":"at+JWT"}"#, Ok((ES256, None))),
            (
                r#"{"alg":"ES256","typ":"Application/at+jwt"}"#,
                Ok((ES256, None)),
            ),
            (r#"{"alg":"ES256","typ":"logout+jwt"}"#, Err(Reason::Type)),
            (r#"{"alg":"ES256","typ":"secevent+jwt"}"#, Err(Reason::Type)),
            (r#"{"alg":"ES256","typ":"dpop+jwt"}"#, Err(Reason::Type)),
            (r#"{"alg":"ES256","typ":"id"}"#, Err(Reason::Type)),
            (r#"{"alg":"ES256","typ":""}"#, Err(Reason::Type)),
            (r#"{"alg":"ES256","typ":null}"#, Err(Reason::Type)),
            (r#"{"alg":"ES256","typ":["JWT"]}"#, Err(Reason::Type)),
            (r#"{"alg":"none"}"#, Err(Reason::Algorithm)),
            (r#"{"alg":"None"}"#, Err(Reason::Algorithm)),
            (r#"{"alg":"NONE"}"#, Err(Reason::Algorithm)),
            (r#"{"alg":"nOnE"}"#, Err(Reason::Algorithm)),
            (r#"{"alg":""}"#, Err(Reason::Algorithm)),
            (r#"{"alg":"es256"}"#, Err(Reason::Algorithm)),
            (r#"{"alg":"ES256K"}"#, Err(Reason::Algorithm)),
            (r#"{"alg":"PBES2-HS256+A128KW"}"#, Err(Reason::Algorithm)),
            (r#"{"alg":["ES256"]}"#, Err(Reason::Algorithm)),
            (r#"{"alg":null}"#, Err(Reason::Algorithm)),
            (r#"{"kid":"k"}"#, Err(Reason::Algorithm)),
            (r#"{"alg":"ES256","kid":7}"#, Err(Reason::KeyId)),
            (r#"{"alg":"ES256","kid":null}"#, Err(Reason::KeyId)),
            (r#"{"alg":"ES256","crit":["b64"]}"#, Err(Reason::Critical)),
            (r#"{"alg":"ES256","crit":[]}"#, Err(Reason::Critical)),
            (r#"{"alg":"ES256","crit":"x"}"#, Err(Reason::Critical)),
            (r#"{"alg":"ES256","b64":true}"#, Err(Reason::Critical)),
            (r#"{"alg":"ES256","b64":false}"#, Err(Reason::Critical)),
            (r#"{"alg":"HS256","alg":"ES256"}"#, Err(Reason::Header)),
            (r#"["ES256"]"#, Err(Reason::Header)),
            ("", Err(Reason::Header)),
        ] {
            check(header, expected);
        }
        let longest = "k".repeat(MAX_KID_BYTES);
        check(
            &format!(r#"{{"alg":"ES256","kid":"{longest}"}}"#),
            Ok((ES256, Some(&longest))),
        );
        check(
            &format!(r#"{{"alg":"ES256","kid":"{longest}k"}}"#),
            Err(Reason::KeyId),
        );
    }

    #[test]
    fn only_three_canonical_segments_have_the_shape_of_a_token() {
        let header = URL_SAFE_NO_PAD.encode(r#"{"alg":"ES256"}"#);
        for (rest, accepted) in [
            (".e30.AAAA", true),
            (".e30.AA", true),
            ("..AAAA", true),
            (".e30", false),
            (".e30.AAAA.", false),
            (".e30.AAAA.AAAA", false),
            (".e30.AAAA.AAAA.AAAA", false),
            (".e30=.AAAA", false),
            (".e30.AA==", false),
            (".e30.AB", false),
            (".e31.AAAA", false),
            (".e30.A+AA", false),
            (".e30.A/AA", false),
            (".e30.AA AA", false),
            (".e30.AAAA\n", false),
            (".e30.AAAA\0", false),
            (".e30.A", false),
            (".e30.ÄÄ", false),
            ("", false),
        ] {
            let token = format!("{header}{rest}");
            assert_eq!(Jws::parse(token.as_bytes()).is_ok(), accepted, "{token}");
        }
        for token in [&b""[..], b".", b"..", b"....", b"\xff.\xff.\xff"] {
            assert!(Jws::parse(token).is_err(), "{token:?}");
        }
    }
}
