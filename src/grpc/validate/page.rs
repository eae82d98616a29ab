//! Which page of a list.

use crate::broker::clusters::ClusterQuery;
use crate::broker::page::PageSize;
use crate::grpc::proto;
use crate::grpc::status::Violation;

use super::{Violations, filter};

/// A `ListClustersRequest`. Whether its token is one of this list's only the list can tell.
///
/// # Errors
/// Every field that is wrong.
pub(in crate::grpc) fn clusters(
    request: &proto::ListClustersRequest,
) -> Result<ClusterQuery, Vec<Violation>> {
    let mut wrong = Violations::default();
    let size = wrong.take("page_size", PageSize::try_new(request.page_size));
    let name = filter::text("name", request.name.as_deref(), &mut wrong);
    let query = size.zip(name).map(|(size, name)| ClusterQuery {
        name,
        size,
        token: request.page_token.clone(),
    });
    wrong.finish(query)
}
