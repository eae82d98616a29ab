//! The scripts, one a transition, each behind what they share.

use redis::Script;
use serde::Serialize;

use super::error::StoreError;
use super::{REQUEST_LIFE, Store};

const PRELUDE: &str = include_str!("scripts/prelude.lua");

/// Whether a script may run past Redis's memory limit.
#[derive(Clone, Copy)]
enum Memory {
    /// It ends access, carries out what was accepted, or only reads.
    MayExceed,
    /// It accepts something new.
    MustFit,
}

pub(super) struct Scripts {
    pub(super) replay: Script,
    pub(super) accept_grant: Script,
    pub(super) accept_extend: Script,
    pub(super) accept_revoke: Script,
    pub(super) expire: Script,
    pub(super) wake: Script,
    pub(super) claim: Script,
    pub(super) begin: Script,
    pub(super) check_lease: Script,
    pub(super) renew: Script,
    pub(super) record: Script,
    pub(super) read_job: Script,
    pub(super) list: Script,
    pub(super) forget: Script,
    pub(super) audit: Script,
    pub(super) seal_begin: Script,
    pub(super) seal: Script,
    pub(super) seal_end: Script,
}

impl Scripts {
    pub(super) fn new() -> Self {
        use Memory::{MayExceed, MustFit};
        Self {
            replay: script(MayExceed, include_str!("scripts/replay.lua")),
            accept_grant: script(MustFit, include_str!("scripts/accept_grant.lua")),
            accept_extend: script(MustFit, include_str!("scripts/accept_extend.lua")),
            accept_revoke: script(MayExceed, include_str!("scripts/accept_revoke.lua")),
            expire: script(MayExceed, include_str!("scripts/expire.lua")),
            wake: script(MayExceed, include_str!("scripts/wake.lua")),
            claim: script(MayExceed, include_str!("scripts/claim.lua")),
            begin: script(MayExceed, include_str!("scripts/begin.lua")),
            check_lease: script(MayExceed, include_str!("scripts/check_lease.lua")),
            renew: script(MayExceed, include_str!("scripts/renew.lua")),
            record: script(MayExceed, include_str!("scripts/record.lua")),
            read_job: script(MayExceed, include_str!("scripts/read_job.lua")),
            list: script(MayExceed, include_str!("scripts/list.lua")),
            forget: script(MayExceed, include_str!("scripts/forget.lua")),
            audit: script(MayExceed, include_str!("scripts/audit.lua")),
            seal_begin: script(MayExceed, include_str!("scripts/seal_begin.lua")),
            seal: script(MayExceed, include_str!("scripts/seal.lua")),
            seal_end: script(MayExceed, include_str!("scripts/seal_end.lua")),
        }
    }
}

fn script(memory: Memory, body: &str) -> Script {
    let flags = match memory {
        Memory::MayExceed => "allow-oom",
        Memory::MustFit => "",
    };
    Script::new(&format!("#!lua flags={flags}\n{PRELUDE}\n{body}"))
}

/// What every script is told besides its own arguments.
#[derive(Serialize)]
struct Argument<'a, A> {
    #[serde(flatten)]
    own: &'a A,
    retention: u64,
    request_life: u64,
}

impl Store {
    /// Runs a script, once more over a new connection if the first was lost: scripts are idempotent.
    pub(super) async fn run<A, T>(&self, script: &Script, argument: &A) -> Result<T, StoreError>
    where
        A: Serialize,
        T: redis::FromRedisValue,
    {
        let argument = Argument {
            own: argument,
            retention: millis(self.retention),
            request_life: millis(REQUEST_LIFE),
        };
        let argument =
            serde_json::to_string(&argument).map_err(|error| StoreError::Unreadable {
                key: "a script's argument".to_owned(),
                problem: error.to_string(),
            })?;
        let meta = self.key("meta");
        self.link
            .with(|mut connection| {
                let mut invocation = script.key(&meta);
                invocation.arg(&argument);
                async move { invocation.invoke_async(&mut connection).await }
            })
            .await
    }
}

/// A duration in whole milliseconds, as scripts count.
pub(super) fn millis(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
