//! `docs/azure-errors.md`, made from the table. A test holds the page to it, and writes it anew where
//! `WRITE_PAGES` is set in the environment (`make pages`).

use std::fmt::Write as _;
use std::path::Path;
use std::{env, fs};

use super::table::{OTHERS, Row, TABLE};
use super::{Disposition, Outcome, REPLICATION, outcome_of};

const HEAD: &str = "<!-- Made from src/azure/error/table.rs by `make pages`: change that, and make it anew. -->
# What Azure's errors mean
Whenever a call to Azure Resource Manager or AKS does not work, the broker looks its error up in one table, by status
and code. This is that table. The *reason* is what callers see in a job, a grant or `google.rpc.ErrorInfo`, where
`azure_code`, `azure_status` and Azure's correlation id stand beside it.

";

const DONE: &str = "\
| done? | |
| --- | --- |
| no | Azure says that nothing was done, or the request never left. |
| perhaps | Nobody knows. The broker writes or deletes the same once more when `reconciler.settle_time` is over, and \
calls no revocation done before that. |

";

const TAIL: &str = "
## Beside the table
- On a 403 or a 404 the cluster itself is read. Only where that read is answered `ResourceNotFound` or
  `ResourceGroupNotFound` is it gone: then every grant on it ends (`CLUSTER_GONE`), and a revocation is done.
  `SubscriptionNotFound`, or a 403, never means that: the broker may only have lost its sight of it.
- A grant that has been tried for `reconciler.grant_give_up` fails with its last reason, and is taken back.
- A revocation never gives up. One that lasts longer than 15 minutes is logged as an error, again and again.
- A failure that passes leaves the job `RETRYING`, with the reason and the time of the next try.
- What begins with PIM is said by Privileged Identity Management, which the broker does not use yet.
- Errors of Microsoft Graph fail the request that needed the look-up, and nothing else.
";

/// What a grant or a revocation does, in a word, and that word's meaning.
fn word(does: Disposition) -> (String, &'static str) {
    let (word, meaning) = match does {
        Disposition::Retry { slow: false } => (
            "soon",
            "It is tried again after `reconciler.backoff_initial`, then ever later, up to `reconciler.backoff_max`.",
        ),
        Disposition::Retry { slow: true } => (
            "slowly",
            "It is tried again at the slow end of the backoff: somebody has to put something right first.",
        ),
        Disposition::AwaitReplication => {
            let minutes = REPLICATION.as_secs() / 60;
            return (
                format!("soon, {minutes} min"),
                "It is tried again soon, as long as Azure's replicas may take; then it fails.",
            );
        }
        Disposition::Throttled => (
            "waits",
            "Calls of this kind to the subscription wait for as long as Azure says, a second at least; others go on.",
        ),
        Disposition::NextName => (
            "next name",
            "It goes on at once under the next name of the series.",
        ),
        Disposition::ReadBack => ("read back", "What stands there is read, and decides."),
        Disposition::Final => (
            "fails",
            "It will never work: the grant fails with the reason, and what it did is taken back.",
        ),
    };
    (word.to_owned(), meaning)
}

fn page() -> String {
    let mut page = HEAD.to_owned();
    page.push_str("| it is tried again | |\n| --- | --- |\n");
    for does in [
        Disposition::Retry { slow: false },
        Disposition::Retry { slow: true },
        Disposition::AwaitReplication,
        Disposition::Throttled,
        Disposition::NextName,
        Disposition::ReadBack,
        Disposition::Final,
    ] {
        let (word, meaning) = word(does);
        writeln!(page, "| {word} | {meaning} |").expect("a text takes more text");
    }
    page.push('\n');
    page.push_str(DONE);
    page.push_str(
        "| status and code | what Azure says | done? | a grant | a revocation | reason | what to do |\n\
         | --- | --- | --- | --- | --- | --- | --- |\n",
    );
    for row in TABLE.iter().chain(OTHERS) {
        page.push_str(&line(row));
    }
    page.push_str(TAIL);
    page
}

fn line(row: &Row) -> String {
    let statuses: Vec<String> = row.statuses.iter().map(u16::to_string).collect();
    let code = if row.code.starts_with('(') {
        row.code.to_owned()
    } else {
        format!("`{}`", row.code)
    };
    let answer = format!("{} {code}", statuses.join(", "));
    let done = if is_unsure(row) { "perhaps" } else { "no" };
    let remedy = if row.remedy.is_empty() {
        "Nothing."
    } else {
        row.remedy
    };
    format!(
        "| {} | {} | {done} | {} | {} | `{}` | {remedy} |\n",
        answer.trim(),
        row.means,
        word(row.granting).0,
        word(row.revoking).0,
        row.reason,
    )
}

/// Where there was no answer, the row knows; else each of the statuses has to say the same.
fn is_unsure(row: &Row) -> bool {
    let unsure = |status: &u16| outcome_of(*status, row) == Outcome::Unknown;
    let all = row.statuses.iter().all(unsure) && !row.statuses.is_empty();
    assert_eq!(all, row.statuses.iter().any(unsure), "{}", row.code);
    all || row.may_have_happened
}

#[test]
fn the_page_of_azure_s_errors_is_the_table() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/azure-errors.md");
    let page = page();
    if env::var_os("WRITE_PAGES").is_some() {
        fs::write(&path, &page).unwrap();
    }
    let written = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        written == page,
        "docs/azure-errors.md is not what the table says: `make pages` writes it anew"
    );
}
