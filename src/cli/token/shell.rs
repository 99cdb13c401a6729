//! The words of a command as a shell would hand them to a program: a POSIX shell with the quotes of bash (`$'…'`), or the
//! command line of Windows, where browsers escape with `^`. Nothing is expanded and nothing is run. Only the first command
//! is read.

/// Whose rules hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shell {
    /// bash, zsh and their kin.
    Posix,
    /// cmd.exe.
    Cmd,
}

/// What a program would get.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Word {
    /// Without quotes and escapes.
    pub bytes: Vec<u8>,
    /// A variable or a command stands in it that only the shell can fill in.
    pub unexpanded: bool,
}

impl std::fmt::Debug for Word {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("[secret]")
    }
}

/// A quote that nothing closes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unclosed;

/// The words of the first command of `text`.
pub fn words(text: &str, shell: Shell) -> Result<Vec<Word>, Unclosed> {
    let text = text.replace("\r\n", "\n");
    let mut reader = Reader {
        rest: text.chars().peekable(),
        words: Vec::new(),
        word: None,
    };
    match shell {
        Shell::Posix => reader.posix()?,
        Shell::Cmd => {
            // Browsers of today escape the quotes themselves, and everything in them.
            let everywhere = text.contains("^\"");
            reader.cmd(everywhere)?;
        }
    }
    reader.end_word();
    Ok(reader.words)
}

struct Reader<'a> {
    rest: std::iter::Peekable<std::str::Chars<'a>>,
    words: Vec<Word>,
    /// `None`: between two words.
    word: Option<Word>,
}

impl Reader<'_> {
    fn word(&mut self) -> &mut Word {
        self.word.get_or_insert_default()
    }

    fn put(&mut self, c: char) {
        let mut utf8 = [0; 4];
        let bytes = c.encode_utf8(&mut utf8).as_bytes();
        self.word().bytes.extend_from_slice(bytes);
    }

    fn end_word(&mut self) {
        self.words.extend(self.word.take());
    }

    fn take(&mut self, wanted: char) -> bool {
        self.rest.next_if_eq(&wanted).is_some()
    }

    fn posix(&mut self) -> Result<(), Unclosed> {
        while let Some(c) = self.rest.next() {
            match c {
                ' ' | '\t' | '\r' => self.end_word(),
                '\n' | ';' | '|' | '&' | '<' | '>' => return Ok(()),
                '#' if self.word.is_none() => return Ok(()),
                '\\' => match self.rest.next() {
                    None | Some('\n') => {}
                    Some(c) => self.put(c),
                },
                '\'' => {
                    self.word();
                    loop {
                        match self.rest.next().ok_or(Unclosed)? {
                            '\'' => break,
                            c => self.put(c),
                        }
                    }
                }
                '"' => self.double_quoted()?,
                '$' if self.take('\'') => self.ansi_c()?,
                '$' if self.take('"') => self.double_quoted()?,
                '$' | '`' => self.maybe_unexpanded(c),
                c => self.put(c),
            }
        }
        Ok(())
    }

    fn double_quoted(&mut self) -> Result<(), Unclosed> {
        self.word();
        loop {
            match self.rest.next().ok_or(Unclosed)? {
                '"' => return Ok(()),
                '\\' => match self.rest.next().ok_or(Unclosed)? {
                    '\n' => {}
                    c @ ('$' | '`' | '"' | '\\') => self.put(c),
                    c => {
                        self.put('\\');
                        self.put(c);
                    }
                },
                c @ ('$' | '`') => self.maybe_unexpanded(c),
                c => self.put(c),
            }
        }
    }

    /// A dollar sign that begins nothing stands for itself.
    fn maybe_unexpanded(&mut self, c: char) {
        let begins =
            |next: &char| next.is_ascii_alphanumeric() || matches!(next, '_' | '{' | '(' | '@');
        let expands = c == '`' || self.rest.peek().is_some_and(begins);
        self.word().unexpanded |= expands;
        self.put(c);
    }

    /// `$'…'`, as bash reads it.
    fn ansi_c(&mut self) -> Result<(), Unclosed> {
        self.word();
        loop {
            let c = match self.rest.next().ok_or(Unclosed)? {
                '\'' => return Ok(()),
                '\\' => self.rest.next().ok_or(Unclosed)?,
                c => {
                    self.put(c);
                    continue;
                }
            };
            let byte = match c {
                'a' => 7,
                'b' => 8,
                'e' | 'E' => 27,
                'f' => 12,
                'n' => 10,
                'r' => 13,
                't' => 9,
                'v' => 11,
                'x' => self.number(16, 2) as u8,
                '0'..='7' => {
                    let first = c.to_digit(8).unwrap_or_default();
                    let more = self.digits(8, 2);
                    (more.iter().fold(first, |sum, digit| sum * 8 + digit) & 0xff) as u8
                }
                'u' | 'U' => {
                    let code = self.number(16, if c == 'u' { 4 } else { 8 });
                    self.put(char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER));
                    continue;
                }
                c @ ('\\' | '\'' | '"' | '?') => {
                    self.put(c);
                    continue;
                }
                c => {
                    self.put('\\');
                    self.put(c);
                    continue;
                }
            };
            self.word().bytes.push(byte);
        }
    }

    fn digits(&mut self, radix: u32, most: usize) -> Vec<u32> {
        let mut digits = Vec::new();
        while digits.len() < most
            && let Some(c) = self.rest.next_if(|c| c.is_digit(radix))
        {
            digits.extend(c.to_digit(radix));
        }
        digits
    }

    fn number(&mut self, radix: u32, most: usize) -> u32 {
        let digits = self.digits(radix, most);
        // Eight hexadecimal digits fit.
        digits
            .iter()
            .fold(0, |sum: u32, digit| sum.wrapping_mul(radix) + digit)
    }

    /// `everywhere`: `^` escapes inside of quotes as well, which are escaped themselves.
    fn cmd(&mut self, everywhere: bool) -> Result<(), Unclosed> {
        let mut quoted = false;
        let mut backslashes = 0_usize;
        loop {
            let mut c = match self.rest.next() {
                Some(c) => c,
                None if quoted => return Err(Unclosed),
                None => break,
            };
            let mut escaped = false;
            if c == '^' && (everywhere || !quoted) {
                match self.rest.next() {
                    None => break,
                    // The line goes on. A second line end is a real one.
                    Some('\n') => {
                        if !self.take('\n') {
                            continue;
                        }
                        c = '\n';
                    }
                    Some(next) => c = next,
                }
                escaped = true;
            }
            if c == '\\' {
                backslashes += 1;
                continue;
            }
            // Backslashes escape only before a quote, and then each other (the C runtime's rule).
            let pairs = if c == '"' {
                backslashes / 2
            } else {
                backslashes
            };
            let literal = c == '"' && backslashes % 2 == 1;
            for _ in 0..pairs {
                self.put('\\');
            }
            backslashes = 0;
            match c {
                '"' if literal => self.put('"'),
                '"' if quoted && !everywhere && self.take('"') => self.put('"'),
                '"' => {
                    quoted = !quoted;
                    self.word();
                }
                ' ' | '\t' | '\r' if !quoted => self.end_word(),
                '\n' | '&' | '|' | '<' | '>' if !quoted && !escaped => break,
                c => self.put(c),
            }
        }
        for _ in 0..backslashes {
            self.put('\\');
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn check(shell: Shell, text: &str, expected: &[&str]) {
        let words = words(text, shell).unwrap_or_else(|Unclosed| panic!("unclosed: {text}"));
        let got: Vec<_> = words
            .iter()
            .map(|word| String::from_utf8_lossy(&word.bytes).into_owned())
            .collect();
        assert_eq!(got, expected, "{text}");
    }

    #[test]
    fn a_posix_shell_takes_quotes_and_escapes_away() {
        for (text, expected) in [
            ("curl a  b\tc", &["curl", "a", "b", "c"][..]),
            ("curl 'a b' \"c d\"", &["curl", "a b", "c d"]),
            ("curl a\\ b 'it'\\''s'", &["curl", "a b", "it's"]),
            (r#"curl "a\"b\\c\$d\`e\n""#, &["curl", r#"a"b\c$d`e\n"#]),
            ("curl a \\\n  b \\\r\n c", &["curl", "a", "b", "c"]),
            ("curl 'a\nb' \"c\\\nd\"", &["curl", "a\nb", "cd"]),
            ("curl '' \"\" x", &["curl", "", "", "x"]),
            ("curl a'b'\"c\"d", &["curl", "abcd"]),
            (
                "curl $'a\\'b\\n\\x41\\u00e9\\101\\\\'",
                &["curl", "a'b\nAéA\\"],
            ),
            (r"curl $'\u0021\x3d\?\q'", &["curl", "!=?\\q"]),
            ("curl a; rm b", &["curl", "a"]),
            ("curl a | jq", &["curl", "a"]),
            ("curl a\nls", &["curl", "a"]),
            ("curl a # b", &["curl", "a"]),
            ("curl a#b", &["curl", "a#b"]),
            ("curl 5$ $", &["curl", "5$", "$"]),
        ] {
            check(Shell::Posix, text, expected);
        }
    }

    #[test]
    fn what_only_the_shell_can_fill_in_is_marked() {
        let marks = |text: &str| {
            let words = words(text, Shell::Posix).unwrap();
            words.iter().map(|word| word.unexpanded).collect::<Vec<_>>()
        };
        assert_eq!(
            marks("curl $A \"b $C\" '$D' \\$E \"$(f)\" `g` ${H} 5$"),
            [false, true, true, false, false, true, true, true, false]
        );
    }

    #[test]
    fn the_command_line_of_windows_is_read_as_browsers_write_it() {
        for (text, expected) in [
            (
                "curl \"http://a/?b=1&c\" ^\r\n  -H \"cookie: a=b; c=d\" ^\r\n  --compressed",
                &[
                    "curl",
                    "http://a/?b=1&c",
                    "-H",
                    "cookie: a=b; c=d",
                    "--compressed",
                ][..],
            ),
            (
                "curl ^\"http://a/^\" ^\n  -H ^\"cookie: a=^%^7B^\\^\"b^\\^\"; c=d^\" ^\n  -X POST",
                &[
                    "curl",
                    "http://a/",
                    "-H",
                    "cookie: a=%7B\"b\"; c=d",
                    "-X",
                    "POST",
                ],
            ),
            ("curl \"a\\\"b\" \"c\"\"d\"", &["curl", "a\"b", "c\"d"]),
            (
                "curl \"a\\\\b\\\\\" c\\d\\",
                &["curl", "a\\\\b\\", "c\\d\\"],
            ),
            ("curl a & del b", &["curl", "a"]),
            ("curl a^&b", &["curl", "a&b"]),
            ("curl \"a^b\"", &["curl", "a^b"]),
        ] {
            check(Shell::Cmd, text, expected);
        }
    }

    #[test]
    fn a_quote_that_nothing_closes_is_told() {
        for text in ["curl 'a", "curl \"a", "curl $'a", "curl \"a\\", "curl $'\\"] {
            assert!(words(text, Shell::Posix) == Err(Unclosed), "{text}");
        }
        assert!(words("curl \"a", Shell::Cmd) == Err(Unclosed));
    }

    proptest! {
        #[test]
        fn what_is_quoted_comes_back(words_given in prop::collection::vec("[^\0\r]{0,20}", 1..5)) {
            let quoted: Vec<_> = words_given
                .iter()
                .map(|word| format!("'{}'", word.replace('\'', "'\\''")))
                .collect();
            let got = words(&quoted.join(" "), Shell::Posix).ok().unwrap();
            let got: Vec<_> = got.iter().map(|word| word.bytes.clone()).collect();
            let expected: Vec<_> = words_given.iter().map(|word| word.clone().into_bytes()).collect();
            prop_assert_eq!(got, expected);
        }

        #[test]
        fn nothing_makes_it_fail_otherwise(text in "\\PC{0,60}|[ \\\\'\"$^\n`x01;uU]{0,40}") {
            for shell in [Shell::Posix, Shell::Cmd] {
                if let Ok(words) = words(&text, shell) {
                    let bytes: usize = words.iter().map(|word| word.bytes.len()).sum();
                    prop_assert!(bytes <= text.len() * 4);
                }
            }
        }
    }
}
