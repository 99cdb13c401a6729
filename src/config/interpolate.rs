//! `${VAR}`, `${VAR:-default}`, `${file:PATH}` and `$${` inside string values. After parsing, never in keys, not recursive.
//! What comes out of here is never printed.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::Read as _;
use std::path::{Path, PathBuf};

/// Most that `${file:PATH}` may hold, in bytes.
pub const FILE_BYTES_MAX: usize = 64 * 1024;

/// What lies outside the text of the file. Tests and `--env-file` bring their own.
pub trait Environment {
    /// A variable, if it is set.
    fn var(&self, name: &str) -> Option<OsString>;
    /// The text of a file of at most `limit` bytes; an error is the end of the sentence "`PATH` …".
    fn file(&self, path: &Path, limit: usize) -> Result<String, String>;
}

/// The process's environment and its file system. Variables of the process win over those of `--env-file`.
#[derive(Debug, Default)]
pub struct ProcessEnvironment {
    /// Variables of `--env-file`.
    pub extra: BTreeMap<String, String>,
}

impl Environment for ProcessEnvironment {
    fn var(&self, name: &str) -> Option<OsString> {
        std::env::var_os(name).or_else(|| self.extra.get(name).map(Into::into))
    }

    fn file(&self, path: &Path, limit: usize) -> Result<String, String> {
        // Looked at before it is opened: opening a pipe would wait for a writer.
        let meta = std::fs::metadata(path).map_err(cannot_read)?;
        if !meta.is_file() {
            return Err("is not a file".into());
        }
        let file = std::fs::File::open(path).map_err(cannot_read)?;
        refuse_if_others_write(&file.metadata().map_err(cannot_read)?)?;
        let mut bytes = Vec::new();
        let most = u64::try_from(limit).unwrap_or(u64::MAX).saturating_add(1);
        file.take(most)
            .read_to_end(&mut bytes)
            .map_err(cannot_read)?;
        if bytes.len() > limit {
            return Err(format!("is larger than {} KiB", limit / 1024));
        }
        String::from_utf8(bytes).map_err(|_| "is not UTF-8 text".into())
    }
}

#[allow(clippy::needless_pass_by_value, reason = "given to map_err")]
fn cannot_read(error: std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::NotFound => "does not exist".into(),
        std::io::ErrorKind::PermissionDenied => "may not be read by this user".into(),
        kind => format!("cannot be read: {kind}"),
    }
}

#[cfg(unix)]
fn refuse_if_others_write(meta: &std::fs::Metadata) -> Result<(), String> {
    use std::os::unix::fs::PermissionsExt as _;
    if meta.permissions().mode() & 0o022 != 0 {
        return Err("can be written by its group or by others; use `chmod go-w`".into());
    }
    Ok(())
}

#[cfg(not(unix))]
fn refuse_if_others_write(_: &std::fs::Metadata) -> Result<(), String> {
    Ok(())
}

/// How a string came to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Written {
    /// As it stands in the file.
    Literal,
    /// Text and variables.
    Mixed,
    /// Wholly one variable: takes the key's type, may hold several elements in a list.
    Variable,
}

/// A string value after interpolation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Expanded {
    pub(super) value: String,
    pub(super) written: Written,
    /// `false`: an unset variable that `--placeholders` lets pass; `value` means nothing.
    pub(super) known: bool,
}

/// What may be wrong: the id, the message and the hint of a diagnostic.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Refused(
    pub(super) &'static str,
    pub(super) String,
    pub(super) String,
);

/// Replaces what a string names. `files` takes the paths that were read.
pub(super) fn expand(
    text: &str,
    dir: &Path,
    world: &dyn Environment,
    placeholders: bool,
    files: &mut Vec<PathBuf>,
) -> Result<Expanded, Vec<Refused>> {
    let mut out = Expanded {
        value: String::with_capacity(text.len()),
        written: Written::Literal,
        known: true,
    };
    let mut refused = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find("${") {
        if let Some(before) = rest[..at].strip_suffix('$') {
            out.value.push_str(before);
            out.value.push_str("${");
            rest = &rest[at + 2..];
            continue;
        }
        let Some(length) = rest[at..].find('}') else {
            refused.push(Refused(
                "bad-interpolation",
                "`${` without `}`".into(),
                "write `$${` for a literal `${`".into(),
            ));
            break;
        };
        out.value.push_str(&rest[..at]);
        let name = &rest[at + 2..at + length];
        let whole = at == 0 && rest.len() == text.len() && length + 1 == text.len();
        out.written = if whole {
            Written::Variable
        } else {
            Written::Mixed
        };
        match resolve(name, dir, world, files) {
            Ok(value) => out.value.push_str(&value),
            Err(Refused("unset-variable", ..)) if placeholders => out.known = false,
            Err(problem) => refused.push(problem),
        }
        rest = &rest[at + length + 1..];
    }
    out.value.push_str(rest);
    if refused.is_empty() {
        Ok(out)
    } else {
        Err(refused)
    }
}

fn resolve(
    name: &str,
    dir: &Path,
    world: &dyn Environment,
    files: &mut Vec<PathBuf>,
) -> Result<String, Refused> {
    if let Some(path) = name.strip_prefix("file:") {
        let full = dir.join(path);
        let text = world
            .file(&full, FILE_BYTES_MAX)
            .map_err(|why| Refused("unreadable-file", format!("`{path}` {why}"), String::new()))?;
        files.push(full);
        let text = text.strip_suffix('\n').unwrap_or(&text);
        return Ok(text.strip_suffix('\r').unwrap_or(text).to_owned());
    }
    let (name, default) = match name.split_once(":-") {
        Some((name, default)) => (name, Some(default)),
        None => (name, None),
    };
    let mut letters = name.chars();
    let fine = letters
        .next()
        .is_some_and(|c| c.is_ascii_alphabetic() || c == '_')
        && letters.all(|c| c.is_ascii_alphanumeric() || c == '_');
    if !fine {
        let hint =
            "one of `${VAR}`, `${VAR:-default}`, `${file:PATH}`; write `$${` for a literal `${`";
        return Err(Refused(
            "bad-interpolation",
            format!("`{name}` is not the name of a variable"),
            hint.into(),
        ));
    }
    let value = match world.var(name).map(OsString::into_string) {
        Some(Ok(value)) => Some(value),
        Some(Err(_)) => {
            return Err(Refused(
                "bad-interpolation",
                format!("the variable `{name}` is not UTF-8 text"),
                String::new(),
            ));
        }
        None => None,
    };
    match (value, default) {
        (Some(value), None) => Ok(value),
        (Some(value), Some(_)) if !value.is_empty() => Ok(value),
        (_, Some(default)) => Ok(default.to_owned()),
        (None, None) => {
            let hint = format!("set it, or give a default: `${{{name}:-…}}`");
            Err(Refused(
                "unset-variable",
                format!("the variable `{name}` is not set"),
                hint,
            ))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct World;

    impl Environment for World {
        fn var(&self, name: &str) -> Option<OsString> {
            match name {
                "A" => Some("one".into()),
                "EMPTY" => Some("".into()),
                "NESTED" => Some("${A}".into()),
                _ => None,
            }
        }
        fn file(&self, path: &Path, _: usize) -> Result<String, String> {
            if path == Path::new("/etc/th/key") {
                Ok("secret\n".into())
            } else {
                Err("does not exist".into())
            }
        }
    }

    fn check(text: &str, expected: Result<(&str, Written), &str>) {
        let got = expand(text, Path::new("/etc/th"), &World, false, &mut Vec::new());
        match (got, expected) {
            (Ok(got), Ok((value, written))) => assert_eq!(
                (got.value.as_str(), got.written),
                (value, written),
                "{text}"
            ),
            (Err(got), Err(id)) => assert_eq!(got[0].0, id, "{text}"),
            (got, _) => panic!("{text}: {got:?}"),
        }
    }

    #[test]
    fn strings_name_variables_and_files() {
        check("plain", Ok(("plain", Written::Literal)));
        check("${A}", Ok(("one", Written::Variable)));
        check("x-${A}-${A}", Ok(("x-one-one", Written::Mixed)));
        check("${A}${A}", Ok(("oneone", Written::Mixed)));
        check("${NONE:-two}", Ok(("two", Written::Variable)));
        check("${EMPTY:-two}", Ok(("two", Written::Variable)));
        check("${EMPTY}", Ok(("", Written::Variable)));
        check("${NONE:-}", Ok(("", Written::Variable)));
        check("${file:key}", Ok(("secret", Written::Variable)));
        check("$${A}", Ok(("${A}", Written::Literal)));
        check("$5 and $", Ok(("$5 and $", Written::Literal)));
        check("${NESTED}", Ok(("${A}", Written::Variable)));
        check("${NONE}", Err("unset-variable"));
        check("${file:other}", Err("unreadable-file"));
        check("${A", Err("bad-interpolation"));
        check("${A B}", Err("bad-interpolation"));
        check("${}", Err("bad-interpolation"));
    }

    #[test]
    fn an_unset_variable_counts_as_set_when_placeholders_are_allowed() {
        let got = expand("${NONE}", Path::new(""), &World, true, &mut Vec::new()).unwrap();
        assert!(!got.known);
    }

    #[cfg(unix)]
    #[test]
    fn a_file_that_others_can_write_is_refused() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        std::fs::write(&path, "k\n").unwrap();
        let world = ProcessEnvironment::default();
        for (mode, fine) in [(0o600, true), (0o644, true), (0o664, false), (0o602, false)] {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(world.file(&path, 64).is_ok(), fine, "{mode:o}");
        }
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        assert!(
            world
                .file(&path, 1)
                .is_err_and(|why| why.contains("larger"))
        );
        assert!(world.file(dir.path(), 1).is_err());
    }
}
