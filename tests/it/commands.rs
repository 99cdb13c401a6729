//! Commands that need no file: what they print for scripts, and how they end.

use crate::process::run;
use std::io::Write as _;
use std::process::{Command, Stdio};

const SHELLS: [&str; 5] = ["bash", "elvish", "fish", "powershell", "zsh"];

/// Gives a text to a program; what it says on standard output. It must end well.
fn pipe(program: &str, arguments: &[&str], text: &str) -> String {
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(text.as_bytes()).unwrap();
    drop(stdin);
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{program}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn keygen_prints_one_key_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let make = || {
        let ended = run(folder.path(), &["keygen"]);
        assert_eq!((ended.code, &*ended.err), (Some(0), ""), "{ended:?}");
        ended.out
    };
    let key = make();
    assert_eq!(key.len(), 44);
    assert_eq!(key.matches('\n').count(), 1);
    let fine = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_');
    assert!(key.trim_end().bytes().all(fine), "{key}");
    assert_ne!(key, make());
}

#[test]
fn keygen_prints_an_api_key_and_the_hash_that_sha256sum_gives() {
    let folder = tempfile::tempdir().unwrap();
    let ended = run(folder.path(), &["keygen", "--api-key"]);
    assert_eq!((ended.code, &*ended.err), (Some(0), ""), "{ended:?}");
    let (key, hash) = ended.out.split_once('\n').unwrap();
    let key = key.strip_prefix("key ").unwrap();
    assert!(key.starts_with("thk_"), "{key}");
    let summed = pipe("sha256sum", &[], key);
    let summed = summed.split(' ').next().unwrap();
    assert_eq!(hash, format!("sha256 {summed}\n"));
}

#[test]
fn schema_prints_json_and_needs_no_file() {
    let folder = tempfile::tempdir().unwrap();
    let ended = run(folder.path(), &["schema"]);
    assert_eq!((ended.code, &*ended.err), (Some(0), ""), "{ended:?}");
    let schema: serde_json::Value = serde_json::from_str(&ended.out).unwrap();
    assert_eq!(schema["$id"], "urn:tollhouse:config");
    assert!(schema["properties"]["routes"].is_object());
}

#[test]
fn completions_are_written_for_each_shell() {
    let folder = tempfile::tempdir().unwrap();
    for shell in SHELLS {
        let ended = run(folder.path(), &["completions", shell]);
        assert_eq!((ended.code, &*ended.err), (Some(0), ""), "{shell}");
        for name in [
            "run", "demo", "check", "routes", "token", "inspect", "keygen", "schema",
        ] {
            assert!(ended.out.contains(name), "{shell}: {name}");
        }
        if shell == "bash" {
            pipe("bash", &["-n"], &ended.out);
        }
    }
}

#[test]
fn completions_without_a_shell_name_the_shells() {
    let folder = tempfile::tempdir().unwrap();
    for arguments in [&["completions"][..], &["completions", "tcsh"]] {
        let ended = run(folder.path(), arguments);
        assert_eq!((ended.code, &*ended.out), (Some(2), ""), "{ended:?}");
        for shell in SHELLS {
            assert!(ended.err.contains(shell), "{shell}: {ended:?}");
        }
    }
}
