//! `BatchCheckAccess`: many checks at once, each with a result of its own.

use std::sync::Arc;

use futures::{StreamExt, stream};

use super::{convert, proto, validate};
use crate::broker::check::{Asked, Checked};
use crate::broker::{Broker, BrokerError, Demand};
use crate::caller::Caller;
use crate::domain::reason::code;
use proto::batch_check_access_response::Item;
use proto::batch_check_access_response::item::Result as Outcome;

/// So many checks of a batch are answered side by side: where they have to wait, they wait together.
const SIDE_BY_SIDE: usize = 64;

/// What became of one check.
enum Answer {
    /// It is no question.
    Invalid(proto::Failure),
    /// The broker's answer.
    Told(Result<Box<(Asked, Checked)>, BrokerError>),
}

/// The answers, in the order of the checks, and how many of them are refusals. Where refusals among them cannot be written
/// down, these are told that instead.
pub(super) async fn answered(
    broker: &Broker,
    caller: &Arc<Caller>,
    need: Demand,
    request: proto::BatchCheckAccessRequest,
) -> (Vec<Item>, usize) {
    let explain_all = request.explain;
    let answers = request.requests.into_iter().map(|request| {
        let explain = explain_all || request.explain;
        answer(
            broker.clone(),
            Arc::clone(caller),
            need.clone(),
            request,
            explain,
        )
    });
    let answers: Vec<Answer> = stream::iter(answers).buffered(SIDE_BY_SIDE).collect().await;
    let refused = answers.iter().filter_map(|answer| match answer {
        Answer::Told(Err(error)) => Some(error),
        _ => None,
    });
    let refused: Vec<&BrokerError> = refused.collect();
    let of_refusal = |error: &&&BrokerError| {
        error.is_denial()
            || [code::PERMISSION_DENIED, code::NOT_FOUND].contains(&error.reason().code())
    };
    let count = refused.iter().filter(of_refusal).count();
    let unwritten = broker.record_refused_checks(caller, &refused).await.err();
    let items = answers.into_iter().map(|answer| Item {
        result: Some(outcome(answer, unwritten.as_ref())),
    });
    (items.collect(), count)
}

async fn answer(
    broker: Broker,
    caller: Arc<Caller>,
    need: Demand,
    request: proto::CheckAccessRequest,
    explain: bool,
) -> Answer {
    let question = match validate::check_of_batch(&request) {
        Ok(question) => question,
        Err(violations) => return Answer::Invalid(convert::invalid_check(&violations)),
    };
    let told = broker.check_one_of_many(&caller, question, need, explain);
    Answer::Told(told.await.map(Box::new))
}

fn outcome(answer: Answer, unwritten: Option<&BrokerError>) -> Outcome {
    match answer {
        Answer::Told(Err(error)) if error.is_denial() => {
            Outcome::Error(convert::failed_check(unwritten.unwrap_or(&error)))
        }
        Answer::Invalid(failure) => Outcome::Error(failure),
        Answer::Told(Ok(told)) => Outcome::Response(convert::answer(&told.0, &told.1)),
        Answer::Told(Err(error)) => Outcome::Error(convert::failed_check(&error)),
    }
}
