//! `tollhouse keygen`: a sealing key for sessions, or an API key and the hash that stands for it in the file.
//!
//! Standard output has the key and nothing else, so that it can be piped into a secret store; what to do with it is
//! said on standard error, and only to a person. Nothing is kept.

use super::{Outcome, fail};
use crate::base::secret::Secret;
use crate::config;
use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::error::Unspecified;
use aws_lc_rs::rand;
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use clap::Args;
use std::io::{self, IsTerminal, Write};

/// Random bytes of a key, of either kind.
const KEY_BYTES: usize = 32;

/// Random bytes of the public part of an API key: enough to tell the keys of one file apart.
const ID_BYTES: usize = 4;

#[derive(Debug, Args)]
pub(super) struct Keygen {
    /// An API key and its SHA-256, instead of a sealing key for session.keys
    #[arg(long)]
    api_key: bool,
}

impl Keygen {
    pub(super) fn execute(&self) -> io::Result<Outcome> {
        let made = if self.api_key {
            api_key(rand::fill)
        } else {
            sealing_key(rand::fill)
        };
        let Ok(made) = made else {
            return fail("the random source of this system failed; no key was made");
        };
        let mut out = io::stdout();
        out.write_all(made.lines.expose().as_bytes())?;
        out.flush()?;
        if out.is_terminal() {
            io::stderr().write_all(made.hint.as_bytes())?;
        }
        Ok(Outcome::Fine)
    }
}

/// A key that has just been made.
struct Made {
    /// For standard output.
    lines: Secret<String>,
    /// For a person.
    hint: String,
}

/// Fills with random bytes, or fails.
type Fill = fn(&mut [u8]) -> Result<(), Unspecified>;

/// 256 bits in base64url without padding (RFC 4648 §5), as `session.keys` takes them.
fn sealing_key(fill: Fill) -> Result<Made, Unspecified> {
    let key = random(fill, KEY_BYTES)?;
    let hint = String::from(
        "\nKeep it in a variable, TOLLHOUSE_SESSION_KEY, and name that in the file:\n\n  \
         [session]\n  keys = [\"${TOLLHOUSE_SESSION_KEY}\"]\n\n\
         To change it: the first key seals, every one opens. Put a new one last at every replica, then first. Take the old\n\
         one out when the sessions that it sealed are over.\n",
    );
    Ok(Made {
        lines: Secret::new(BASE64_URL_SAFE_NO_PAD.encode(key.expose()) + "\n"),
        hint,
    })
}

/// `thk_ID_SECRET`. `thk_ID` may stand in a log and tells the key apart; the secret is 256 bits. Both are lower-case
/// hexadecimal: no character that a shell, a header or a URL reads in its own way, and one double click takes it all.
fn api_key(fill: Fill) -> Result<Made, Unspecified> {
    let id = hex(random(fill, ID_BYTES)?.expose());
    let secret = Secret::new(hex(random(fill, KEY_BYTES)?.expose()));
    let key = Secret::new(format!("thk_{id}_{}", secret.expose()));
    let hash = hex(digest(&SHA256, key.expose().as_bytes()).as_ref());
    let later = not_yet(config::is_later("", "api_keys"));
    let hint = format!(
        "\nGive the key to whoever will send it: it is shown this once. The file holds only its hash{later}:\n\n  \
         [api_keys.partners]\n  kind = \"static\"\n  \
         keys = [{{ id = \"ci\", sha256 = \"{hash}\", user_id = \"svc-ci\" }}]\n"
    );
    Ok(Made {
        lines: Secret::new(format!("key {}\nsha256 {hash}\n", key.expose())),
        hint,
    })
}

fn random(fill: Fill, length: usize) -> Result<Secret<Vec<u8>>, Unspecified> {
    let mut bytes = vec![0; length];
    fill(&mut bytes)?;
    Ok(Secret::new(bytes))
}

fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        let digit = |four: u8| char::from_digit(u32::from(four), 16).unwrap_or_default();
        text.extend([digit(byte >> 4), digit(byte & 15)]);
    }
    text
}

/// A key of the file that this version refuses must not be recommended without a word.
fn not_yet(later: bool) -> &'static str {
    if later {
        " (this version does not read it yet)"
    } else {
        ""
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    fn lines(made: Result<Made, Unspecified>) -> Vec<String> {
        let made = made.unwrap();
        made.lines.expose().lines().map(str::to_owned).collect()
    }

    #[test]
    fn a_sealing_key_is_one_line_of_256_bits() {
        let made = lines(sealing_key(rand::fill));
        assert_eq!(made.len(), 1);
        assert_eq!(made[0].len(), 43);
        assert!(!made[0].contains('='));
        assert_eq!(BASE64_URL_SAFE_NO_PAD.decode(&made[0]).unwrap().len(), 32);
    }

    #[test]
    fn an_api_key_is_letters_digits_and_underscores_around_256_bits() {
        let made = lines(api_key(rand::fill));
        assert_eq!(made.len(), 2);
        let key = made[0].strip_prefix("key ").unwrap();
        let parts: Vec<&str> = key.split('_').collect();
        assert_eq!((parts.len(), parts[0]), (3, "thk"));
        assert_eq!((parts[1].len(), parts[2].len()), (8, 64));
        let fine = |c: char| matches!(c, '0'..='9' | 'a'..='f');
        assert!(parts[1].chars().chain(parts[2].chars()).all(fine), "{key}");
        assert_ne!(parts[2].get(..8), Some(parts[1]), "the id is public");
        let hash = made[1].strip_prefix("sha256 ").unwrap();
        assert!(hash.len() == 64 && hash.chars().all(fine), "{hash}");
    }

    #[test]
    fn no_two_runs_make_the_same_key() {
        let mut seen = HashSet::new();
        for _ in 0..50 {
            assert!(seen.insert(lines(sealing_key(rand::fill)).remove(0)));
            let key = lines(api_key(rand::fill)).remove(0);
            let id = key.split('_').nth(1).unwrap().to_owned();
            assert!(seen.insert(key) && seen.insert(id));
        }
    }

    #[test]
    fn the_hash_is_that_of_the_whole_key_as_it_is_printed() {
        let abc: Fill = |bytes| {
            bytes.fill(0xab);
            Ok(())
        };
        // printf %s thk_abab…_abab… | sha256sum
        let made = lines(api_key(abc));
        assert_eq!(
            made[0],
            format!("key thk_{}_{}", "ab".repeat(4), "ab".repeat(32))
        );
        assert_eq!(
            made[1],
            "sha256 4fd04ab29fe95ae43076f35b25c32bd252641971d3a2ab9f53061f29c4e50d35"
        );
        assert_eq!(hex(digest(&SHA256, b"abc").as_ref()), ABC);
    }

    /// FIPS 180-2, appendix B.1.
    const ABC: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    #[test]
    fn without_random_bytes_there_is_no_key() {
        let broken: Fill = |_| Err(Unspecified);
        assert!(sealing_key(broken).is_err());
        assert!(api_key(broken).is_err());
        // Not a key of zeros when only the second draw fails, either.
        let late: Fill = |bytes| {
            if bytes.len() == ID_BYTES {
                Ok(())
            } else {
                Err(Unspecified)
            }
        };
        assert!(api_key(late).is_err());
    }

    #[test]
    fn what_the_hint_shows_is_toml_and_holds_no_secret() {
        let made = [sealing_key(rand::fill), api_key(rand::fill)].map(Result::unwrap);
        for made in made {
            let shown = made.hint.lines().filter(|line| line.starts_with("  "));
            let shown: Vec<&str> = shown.collect();
            let file: toml::Table = toml::from_str(&shown.join("\n")).unwrap();
            assert_eq!(file.len(), 1);
            let out = made.lines.expose();
            let key = out.lines().next().unwrap().trim_start_matches("key ");
            assert!(!made.hint.contains(key));
        }
    }
}
