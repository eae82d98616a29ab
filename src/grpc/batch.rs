//! `BatchCheckAccess`: many checks at once, each with a result of its own.

use std::sync::Arc;

use futures::{StreamExt, stream};

use super::{convert, proto, validate};
use crate::broker::{Broker, Need};
use crate::caller::Caller;

/// So many checks of a batch are answered side by side: where they have to wait, they wait together.
const SIDE_BY_SIDE: usize = 64;

/// The answers, in the order of the checks.
pub(super) async fn answered(
    broker: &Broker,
    caller: &Arc<Caller>,
    need: Need,
    request: proto::BatchCheckAccessRequest,
) -> Vec<proto::batch_check_access_response::Item> {
    let explain_all = request.explain;
    let answers = request.requests.into_iter().map(|request| {
        let explain = explain_all || request.explain;
        let answer = answer(broker.clone(), Arc::clone(caller), need, request, explain);
        async move {
            proto::batch_check_access_response::Item {
                result: Some(answer.await),
            }
        }
    });
    stream::iter(answers).buffered(SIDE_BY_SIDE).collect().await
}

async fn answer(
    broker: Broker,
    caller: Arc<Caller>,
    need: Need,
    request: proto::CheckAccessRequest,
    explain: bool,
) -> proto::batch_check_access_response::item::Result {
    use proto::batch_check_access_response::item::Result;
    let question = match validate::check_of_batch(&request) {
        Ok(question) => question,
        Err(violations) => return Result::Error(convert::invalid_check(&violations)),
    };
    match broker.check_access(&caller, question, need, explain).await {
        Ok((asked, checked)) => Result::Response(convert::answer(&asked, &checked)),
        Err(error) => Result::Error(convert::failed_check(&error)),
    }
}
