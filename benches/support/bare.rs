//! The ceiling: a bare tonic server that reads the same request and gives the same answer at once.
//!
//! Written as tonic's own generator writes a service of one unary call, and nothing before or behind it.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::pin::Pin;
use std::task::{Context, Poll};

use aks_access_broker::grpc::proto::{CheckAccessRequest, CheckAccessResponse};
use tokio::net::TcpListener;
use tonic::body::Body;
use tonic::server::{Grpc, NamedService, UnaryService};
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status};
use tonic_prost::ProstCodec;
use tower::Service;

/// Serves one answer for good.
pub(crate) async fn serve(
    listener: TcpListener,
    answer: CheckAccessResponse,
) -> Result<(), tonic::transport::Error> {
    Server::builder()
        .add_service(Bare { answer })
        .serve_with_incoming(TcpIncoming::from(listener).with_nodelay(Some(true)))
        .await
}

#[derive(Clone)]
struct Bare {
    answer: CheckAccessResponse,
}

impl NamedService for Bare {
    const NAME: &'static str = "aks.access.v1.AccessBrokerService";
}

impl Service<http::Request<Body>> for Bare {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let bare = self.clone();
        Box::pin(async move {
            let codec = ProstCodec::default();
            Ok(Grpc::new(codec).unary(bare, request).await)
        })
    }
}

impl UnaryService<CheckAccessRequest> for Bare {
    type Response = CheckAccessResponse;
    type Future = Ready<Result<Response<CheckAccessResponse>, Status>>;

    fn call(&mut self, _: Request<CheckAccessRequest>) -> Self::Future {
        ready(Ok(Response::new(self.answer.clone())))
    }
}
