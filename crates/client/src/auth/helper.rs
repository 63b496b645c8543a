//! The protocol of `docker-credential-NAME` programs: a word as argument, text in, JSON out.

use std::process::Stdio;
use std::time::Duration;

use serde::Deserialize;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use crate::Secret;
use crate::surroundings::Surroundings;

/// How long a helper may take; some ask a cloud service.
const MAX_HELPER_TIME: Duration = Duration::from_secs(60);

/// What a helper answers to `get`.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    #[serde(default)]
    username: String,
    #[serde(default)]
    secret: String,
}

/// Asks for the credential of a server. `Ok(None)`: the helper has none.
pub(crate) async fn get(env: &Surroundings, program: &str, server: &str) -> Result<Option<(String, Secret)>, String> {
    let output = match run(env, program, "get", server).await? {
        Ok(output) => output,
        // The texts of the protocol's reference implementation.
        Err(text) if text.contains("credentials not found") || text.contains("no credentials server URL") => {
            return Ok(None);
        }
        Err(text) => return Err(format!("`docker-credential-{program} get` failed: {text}")),
    };
    let answer: Answer = serde_json::from_slice(&output)
        .map_err(|e| format!("`docker-credential-{program} get` answered no JSON (line {})", e.line()))?;
    if answer.username.is_empty() && answer.secret.is_empty() {
        return Ok(None);
    }
    Ok(Some((answer.username, answer.secret.into())))
}

/// Gives the helper a credential to keep.
pub(crate) async fn store(
    env: &Surroundings,
    program: &str,
    server: &str,
    username: &str,
    password: &Secret,
) -> Result<(), String> {
    let text = serde_json::json!({"ServerURL": server, "Username": username, "Secret": password.reveal()}).to_string();
    run(env, program, "store", &text)
        .await?
        .map(drop)
        .map_err(|text| format!("`docker-credential-{program} store` failed: {text}"))
}

/// Lets the helper forget a credential.
pub(crate) async fn erase(env: &Surroundings, program: &str, server: &str) -> Result<(), String> {
    run(env, program, "erase", server)
        .await?
        .map(drop)
        .map_err(|text| format!("`docker-credential-{program} erase` failed: {text}"))
}

async fn run(env: &Surroundings, program: &str, verb: &str, input: &str) -> Result<Result<Vec<u8>, String>, String> {
    // The name comes from a file: it must stay a name, not become a path.
    if program.is_empty() || !program.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.')) {
        return Err(format!("`{program}` is not the name of a credential helper"));
    }
    let name = format!("docker-credential-{program}");
    let work = async {
        let mut command = Command::new(&name);
        if let Some(path) = env.var("PATH") {
            command.env("PATH", path);
        }
        let mut child = command
            .arg(verb)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(|e| format!("cannot run `{name}`: {e}"))?;
        if let Some(mut stdin) = child.stdin.take() {
            // A helper that does not read its input is its own affair: its exit status decides.
            let _ = stdin.write_all(input.as_bytes()).await;
        }
        child.wait_with_output().await.map_err(|e| format!("cannot run `{name}`: {e}"))
    };
    let output = tokio::time::timeout(MAX_HELPER_TIME, work)
        .await
        .map_err(|_| format!("`{name}` gave no answer within {} s", MAX_HELPER_TIME.as_secs()))??;
    if output.status.success() {
        return Ok(Ok(output.stdout));
    }
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    Ok(Err(text.trim().chars().take(400).collect()))
}
