//! The header fields of a `curl` command: `-H`, `-b` and `--oauth2-bearer`, in every way in which they are written. What
//! else curl takes is passed over, with its value.

use super::shell::Word;

/// An option that says something of a credential.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Part<'a> {
    pub(super) kind: Kind,
    pub(super) value: &'a [u8],
    /// A variable of the shell stands in it.
    pub(super) unexpanded: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// `-H`: name, colon, value.
    Field,
    /// `-b`: pairs, or the name of a file.
    Cookies,
    /// `--oauth2-bearer`.
    Bearer,
}

/// Short options that take a value, as of curl 8.
const SHORT_WITH_VALUE: &[u8] = b"AbcCdDeEFhHKmoPQrtTuUwxXyYz";

/// Long options that take a value which may look like an option itself.
const LONG_WITH_VALUE: &[&str] = &[
    "cacert",
    "cert",
    "connect-timeout",
    "connect-to",
    "cookie-jar",
    "data",
    "data-ascii",
    "data-binary",
    "data-raw",
    "data-urlencode",
    "dump-header",
    "form",
    "form-string",
    "interface",
    "json",
    "key",
    "max-time",
    "output",
    "proxy",
    "proxy-header",
    "proxy-user",
    "range",
    "referer",
    "request",
    "request-target",
    "resolve",
    "retry",
    "unix-socket",
    "upload-file",
    "url",
    "user",
    "user-agent",
    "write-out",
];

/// What the options of a command say, in order. `words` begin behind `curl`.
pub(super) fn parts(words: &[Word]) -> Vec<Part<'_>> {
    let mut parts = Vec::new();
    let mut words = words.iter();
    while let Some(word) = words.next() {
        if let Some(name) = word.bytes.strip_prefix(b"--") {
            let (name, inline) = split_long(name);
            let kind = match name {
                b"header" => Some(Kind::Field),
                b"cookie" => Some(Kind::Cookies),
                b"oauth2-bearer" => Some(Kind::Bearer),
                name if LONG_WITH_VALUE.iter().any(|long| long.as_bytes() == name) => None,
                _ => continue,
            };
            let (value, unexpanded) = match inline {
                Some(value) => (value, word.unexpanded),
                None => match words.next() {
                    Some(next) => (&*next.bytes, next.unexpanded),
                    None => continue,
                },
            };
            parts.extend(kind.map(|kind| Part {
                kind,
                value,
                unexpanded,
            }));
        } else if let Some(cluster) = word.bytes.strip_prefix(b"-") {
            let with_value = |letter: &u8| SHORT_WITH_VALUE.contains(letter);
            let Some(at) = cluster.iter().position(with_value) else {
                continue;
            };
            let (letter, rest) = (cluster[at], &cluster[at + 1..]);
            let kind = match letter {
                b'H' => Some(Kind::Field),
                b'b' => Some(Kind::Cookies),
                _ => None,
            };
            let (value, unexpanded) = match words.as_slice() {
                _ if !rest.is_empty() => (rest, word.unexpanded),
                [next, ..] => {
                    words.next();
                    (&*next.bytes, next.unexpanded)
                }
                [] => continue,
            };
            parts.extend(kind.map(|kind| Part {
                kind,
                value,
                unexpanded,
            }));
        }
    }
    parts
}

/// `--header=x` is not curl's own way, but people write it.
fn split_long(name: &[u8]) -> (&[u8], Option<&[u8]>) {
    match name.iter().position(|byte| *byte == b'=') {
        Some(at) => (&name[..at], Some(&name[at + 1..])),
        None => (name, None),
    }
}

#[cfg(test)]
mod tests {
    use super::super::shell::{Shell, words};
    use super::*;

    fn check(command: &str, expected: &[(Kind, &str)]) {
        let words = words(command, Shell::Posix).ok().unwrap();
        let got: Vec<_> = parts(&words[1..])
            .iter()
            .map(|part| (part.kind, String::from_utf8_lossy(part.value).into_owned()))
            .collect();
        let expected: Vec<_> = expected
            .iter()
            .map(|(kind, value)| (*kind, (*value).to_owned()))
            .collect();
        assert_eq!(got, expected, "{command}");
    }

    #[test]
    fn options_are_found_however_they_are_written() {
        use Kind::{Bearer, Cookies, Field};
        check("curl http://a/", &[]);
        check("curl -H 'a: b' x", &[(Field, "a: b")]);
        check(
            "curl x -H'a: b' --header 'c: d'",
            &[(Field, "a: b"), (Field, "c: d")],
        );
        check("curl --header='a: b=c'", &[(Field, "a: b=c")]);
        check(
            "curl -sSLH 'a: b' -kHc:d",
            &[(Field, "a: b"), (Field, "c:d")],
        );
        check(
            "curl -b 'a=b; c=d' --cookie jar.txt",
            &[(Cookies, "a=b; c=d"), (Cookies, "jar.txt")],
        );
        check("curl --oauth2-bearer t", &[(Bearer, "t")]);
        check("curl -H", &[]);
    }

    #[test]
    fn values_of_other_options_are_no_options() {
        check("curl -d -H -X POST -A -b --data-raw --header", &[]);
        check("curl -o -H --url -b x -H 'a: b'", &[(Kind::Field, "a: b")]);
        check("curl --compressed -H 'a: b'", &[(Kind::Field, "a: b")]);
    }

    #[test]
    fn a_variable_of_the_shell_is_told() {
        let marks = |command: &str| {
            let words = words(command, Shell::Posix).ok().unwrap();
            let parts = parts(&words[1..]);
            parts.iter().map(|part| part.unexpanded).collect::<Vec<_>>()
        };
        assert_eq!(
            marks("curl \"$URL\" -H \"authorization: Bearer $T\" -d $D -H a:b --cookie=\"$C\""),
            [true, false, true]
        );
    }
}
