//! What `dev` prints once everything runs: what there is, and lines to paste into a second terminal.

use std::fmt::Write as _;
use std::io::{self, Write as _, stdout};

use super::description::Description;
use super::state_dir::StateDir;

pub(super) fn print(world: &Description, state: &StateDir) -> io::Result<()> {
    let mut out = stdout().lock();
    out.write_all(text(world, state).as_bytes())?;
    out.flush()
}

fn text(world: &Description, state: &StateDir) -> String {
    let mut text = format!("\nThe broker is ready on {}.\n\n", world.grpc());
    for (name, url) in world.others() {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "  {name:<17} {url}");
    }
    let kept = if state.is_temporary() {
        "gone when this ends; keep it with --state-dir DIR"
    } else {
        "kept for the next run"
    };
    let _ = writeln!(
        text,
        "  {:<17} {} ({kept})",
        "state",
        state.path().display()
    );
    if let Some((cluster, principal)) = world.example() {
        let steps = steps(world, cluster, &principal.to_string());
        text.push_str(&steps);
    }
    text
}

/// Lines that work as they stand, and last the variables that the README's lines want.
fn steps(world: &Description, cluster: &str, principal: &str) -> String {
    let grpc = world.grpc();
    let call = |method: &str, body: &str| {
        format!(
            "grpcurl -plaintext -H \"authorization: Bearer $TOKEN\" -d '{body}' {grpc} \
             aks.access.v1.AccessBrokerService/{method}"
        )
    };
    let who = format!(
        r#""principal": {{"object_id": "{principal}", "type": "PRINCIPAL_TYPE_USER"}}, "cluster": "{cluster}", "access": {{"azure_role": "AZURE_ROLE_RBAC_READER"}}"#
    );
    let steps = [
        ("Look round", call("ListClusters", "{}")),
        (
            "Let a user read a cluster's objects for an hour",
            call(
                "Grant",
                &format!(r#"{{{who}, "ttl": "3600s", "justification": "trying it out"}}"#),
            ),
        ),
        (
            "Follow the job that the answer names",
            call("WatchJob", r#"{"job_id": "JOB_ID"}"#),
        ),
        (
            "Ask whether the access is there",
            call("CheckAccess", &format!(r#"{{{who}, "explain": true}}"#)),
        ),
        (
            "Take it back",
            call(
                "Revoke",
                r#"{"grant_id": "GRANT_ID", "justification": "tried it"}"#,
            ),
        ),
    ];
    let mut text = "\nIn a second terminal (`make tests/tools/bin/grpcurl` builds grpcurl; put tests/tools/bin on its PATH),\nonce the last line of this is pasted there:\n".to_owned();
    for (what, line) in steps {
        let _ = write!(text, "\n# {what}\n{line}\n");
    }
    let _ = write!(
        text,
        "\nexport BROKER={grpc} CLUSTER={cluster} PRINCIPAL={principal} TOKEN={} AUDITOR={}\n",
        world.token("platform"),
        world.token("auditor")
    );
    text
}
