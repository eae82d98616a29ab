//! The scripts, one a transition, each behind what they share.

use redis::{Arg, FromRedisValue, Pipeline, Script};
use serde::Serialize;

use super::error::StoreError;
use super::meta::Identity;
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
    pub(super) seal_aside: Script,
    pub(super) seal: Script,
    pub(super) seal_end: Script,
    pub(super) plain: Script,
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
            seal_aside: script(MayExceed, include_str!("scripts/seal_aside.lua")),
            seal: script(MayExceed, include_str!("scripts/seal.lua")),
            seal_end: script(MayExceed, include_str!("scripts/seal_end.lua")),
            plain: script(MayExceed, include_str!("scripts/plain.lua")),
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
    began_with: &'a Identity,
    retention: u64,
    request_life: u64,
}

/// How many words each command has. The words themselves follow as further arguments, because JSON cannot hold bytes.
#[derive(Serialize)]
struct PlainArgument {
    lengths: Vec<usize>,
}

impl Store {
    /// Runs a script, once more over a new connection if the first was lost: scripts are idempotent.
    ///
    /// # Errors
    /// [`StoreError::InDoubt`] if Redis is not the one that this process began with. The script has changed nothing in
    /// the present Redis. If the first connection broke, the script may have run on the earlier one.
    pub(super) async fn run<A, T>(&self, script: &Script, argument: &A) -> Result<T, StoreError>
    where
        A: Serialize,
        T: FromRedisValue,
    {
        let argument = self.argument(argument).await?;
        self.link.invoke(script, &[argument.as_bytes()]).await
    }

    /// Runs plain commands in one atomic step, and returns their answers in order. They run as a script, so that the
    /// step begins with the comparison of `meta`. They have to be idempotent.
    ///
    /// # Errors
    /// [`StoreError`]
    pub(super) async fn plain<T>(&self, commands: &Pipeline) -> Result<T, StoreError>
    where
        T: FromRedisValue,
    {
        let mut words: Vec<&[u8]> = Vec::new();
        let mut lengths = Vec::new();
        let mut keys: Vec<String> = Vec::new();
        for command in commands.cmd_iter() {
            let before = words.len();
            // The other kind of word is a cursor, which no command here has.
            words.extend(command.args_iter().filter_map(|word| match word {
                Arg::Simple(word) => Some(word),
                _ => None,
            }));
            lengths.push(words.len() - before);
            let key = words
                .get(before + 1)
                .map(|key| String::from_utf8_lossy(key));
            keys.extend(key.map(std::borrow::Cow::into_owned));
        }
        let argument = self.argument(&PlainArgument { lengths }).await?;
        let mut arguments = vec![argument.as_bytes()];
        arguments.append(&mut words);
        let answers = self.link.invoke(&self.scripts.plain, &arguments).await;
        answers.map_err(|error| match error {
            // Redis says that a key has the wrong type, but not which key.
            StoreError::Unreadable { problem, .. } => StoreError::Unreadable {
                key: keys.join(" or "),
                problem,
            },
            error => error,
        })
    }

    async fn argument<A: Serialize>(&self, own: &A) -> Result<String, StoreError> {
        let argument = Argument {
            own,
            began_with: self.link.identity().await?,
            retention: millis(self.retention),
            request_life: millis(REQUEST_LIFE),
        };
        serde_json::to_string(&argument).map_err(|error| StoreError::Unreadable {
            key: "a script's argument".to_owned(),
            problem: error.to_string(),
        })
    }
}

/// A duration in whole milliseconds, as scripts count.
pub(super) fn millis(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
