//! Finds, reads and validates the configuration for every command that needs one.

use super::File;
use crate::config::interpolate::ProcessEnvironment;
use crate::config::{self, Config, Options, Problems};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Where a configuration is looked for when no file is named.
const USUAL_PLACES: [&str; 3] = [
    "./tollhouse.toml",
    "./config/tollhouse.toml",
    "/etc/tollhouse/tollhouse.toml",
];

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LoadError {
    /// None was named and none lies in the usual places.
    #[error(
        "no configuration found (looked for {}).\n  Without a file:  tollhouse run --upstream http://127.0.0.1:8000 --supabase https://xyz.supabase.co\n  With a file:     tollhouse run -c config/tollhouse.toml\n  Just to look:    tollhouse demo",
        USUAL_PLACES.join(", ")
    )]
    Nowhere,
    /// It cannot be read.
    #[error("cannot read {}", .0.display())]
    Read(PathBuf, #[source] std::io::Error),
    /// A line of an `--env-file`.
    #[error("{}:{line}: expected NAME=value", file.display())]
    EnvFile {
        /// The file.
        file: PathBuf,
        /// Counted from 1.
        line: usize,
    },
    /// It is wrong.
    #[error("{0}")]
    Problems(Problems),
}

/// A validated file and its name.
#[derive(Debug)]
pub(crate) struct Loaded {
    pub(crate) config: Config,
    pub(crate) path: PathBuf,
    pub(crate) text: String,
}

/// The first file that lies in a usual place.
pub(crate) fn in_usual_places() -> Option<PathBuf> {
    USUAL_PLACES
        .iter()
        .map(PathBuf::from)
        .find(|path| path.is_file())
}

/// Loads the file that the arguments name, or the first of the usual ones.
pub(crate) fn load(file: &File, placeholders: bool) -> Result<Loaded, LoadError> {
    let path = match file.named() {
        Some(path) => path,
        None => in_usual_places().ok_or(LoadError::Nowhere)?,
    };
    let text =
        std::fs::read_to_string(&path).map_err(|error| LoadError::Read(path.clone(), error))?;
    let variables = variables(file.env_file.as_deref())?;
    let config = parse(&text, &path, variables, placeholders)?;
    Ok(Loaded { config, path, text })
}

impl File {
    /// The file that was named, by the flag or by the environment.
    pub(crate) fn named(&self) -> Option<PathBuf> {
        let variable = || std::env::var_os("TOLLHOUSE_CONFIG").filter(|path| !path.is_empty());
        self.config
            .clone()
            .or_else(|| variable().map(PathBuf::from))
    }
}

/// Validates a text; `file` is what diagnostics call it and what `${file:…}` is relative to.
pub(crate) fn parse(
    text: &str,
    file: &Path,
    variables: BTreeMap<String, String>,
    placeholders: bool,
) -> Result<Config, LoadError> {
    let environment = ProcessEnvironment { extra: variables };
    config::load(text, file, &environment, Options { placeholders }).map_err(LoadError::Problems)
}

/// Reads an `--env-file`: `NAME=value` lines, `#` comments, an optional `export`, values bare or in quotes.
fn variables(file: Option<&Path>) -> Result<BTreeMap<String, String>, LoadError> {
    let Some(file) = file else {
        return Ok(BTreeMap::new());
    };
    let text =
        std::fs::read_to_string(file).map_err(|error| LoadError::Read(file.to_owned(), error))?;
    let mut variables = BTreeMap::new();
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        let line = line.strip_prefix("export ").unwrap_or(line).trim_start();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let wrong = || LoadError::EnvFile {
            file: file.to_owned(),
            line: number + 1,
        };
        let (name, value) = line.split_once('=').ok_or_else(wrong)?;
        let name = name.trim();
        if name.is_empty() || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
            return Err(wrong());
        }
        let value = value.trim();
        let quoted = ['"', '\'']
            .iter()
            .find_map(|q| value.strip_prefix(*q)?.strip_suffix(*q));
        variables.insert(name.to_owned(), quoted.unwrap_or(value).to_owned());
    }
    Ok(variables)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn an_env_file_is_read_line_by_line() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        write!(file, "# keys\nA=1\nexport B = \"two words\"\nC='x=y'\n\n").unwrap();
        let variables = variables(Some(file.path())).unwrap();
        assert_eq!(variables["A"], "1");
        assert_eq!(variables["B"], "two words");
        assert_eq!(variables["C"], "x=y");
    }

    #[test]
    fn a_line_without_a_value_is_named() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        write!(file, "A=1\nB\n").unwrap();
        assert!(matches!(
            variables(Some(file.path())),
            Err(LoadError::EnvFile { line: 2, .. })
        ));
    }
}
