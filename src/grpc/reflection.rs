//! Server reflection: the contract, for whoever asks. It tells nothing of what the contract is about.
//!
//! The library's own service ends the stream at the first name that it does not know, and knows no values of enums. Here
//! such a question is answered, and the next one is taken.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures::{Stream, StreamExt};
use prost::Message;
use prost_reflect::prost_types::FileDescriptorSet;
use prost_reflect::{DescriptorError, DescriptorPool, FileDescriptor};
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;
use tonic::{Code, Request, Response, Status, Streaming};
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;
use tonic_reflection::pb::v1::{
    self, ErrorResponse, ExtensionNumberResponse, FileDescriptorResponse, ListServiceResponse,
    ServerReflectionRequest, ServerReflectionResponse, ServiceResponse,
};
use tonic_reflection::pb::v1alpha;

use super::{DESCRIPTORS, status};

/// Answers what the contract says.
#[derive(Clone)]
pub(super) struct Reflection {
    contract: Arc<Contract>,
    longest: Duration,
    shutdown: CancellationToken,
}

/// Everything that is served, by name.
struct Contract {
    services: Vec<String>,
    files: HashMap<String, Vec<u8>>,
    /// The name of the file that has a symbol.
    file_of: HashMap<String, String>,
}

impl Contract {
    /// Of everything that is served, and of the error details, without which `grpcurl` could not print them.
    fn read() -> Result<Self, DescriptorError> {
        let mut pool = DescriptorPool::new();
        for set in [
            DESCRIPTORS,
            tonic_types::pb::FILE_DESCRIPTOR_SET,
            tonic_health::pb::FILE_DESCRIPTOR_SET,
            v1::FILE_DESCRIPTOR_SET,
            v1alpha::FILE_DESCRIPTOR_SET,
        ] {
            let mut set = FileDescriptorSet::decode(set).unwrap_or_default();
            set.file
                .retain(|file| pool.get_file_by_name(file.name()).is_none());
            pool.add_file_descriptor_set(set)?;
        }
        let files = pool
            .files()
            .map(|file| (file.name().to_owned(), file.encode_to_vec()));
        Ok(Self {
            services: pool
                .services()
                .map(|service| service.full_name().to_owned())
                .collect(),
            files: files.collect(),
            file_of: symbols(&pool)
                .map(|(symbol, file)| (symbol, file.name().to_owned()))
                .collect(),
        })
    }

    fn answer(&self, asked: &MessageRequest) -> MessageResponse {
        match asked {
            MessageRequest::FileByFilename(name) => self.file(name),
            MessageRequest::FileContainingSymbol(symbol) => match self.file_of.get(symbol) {
                Some(file) => self.file(file),
                None => not_found(&format!("there is no symbol {symbol:?} here")),
            },
            MessageRequest::FileContainingExtension(_) => not_found("there are no extensions here"),
            MessageRequest::AllExtensionNumbersOfType(name) => {
                // Without any, which is no error: `grpcurl` asks this of every message.
                MessageResponse::AllExtensionNumbersResponse(ExtensionNumberResponse {
                    base_type_name: name.clone(),
                    extension_number: Vec::new(),
                })
            }
            MessageRequest::ListServices(_) => {
                let service = |name: &String| ServiceResponse { name: name.clone() };
                MessageResponse::ListServicesResponse(ListServiceResponse {
                    service: self.services.iter().map(service).collect(),
                })
            }
        }
    }

    fn file(&self, name: &str) -> MessageResponse {
        match self.files.get(name) {
            Some(file) => MessageResponse::FileDescriptorResponse(FileDescriptorResponse {
                file_descriptor_proto: vec![file.clone()],
            }),
            None => not_found(&format!("there is no file {name:?} here")),
        }
    }
}

/// Every name of a contract, and its file.
fn symbols(pool: &DescriptorPool) -> impl Iterator<Item = (String, FileDescriptor)> {
    let services = pool.services().flat_map(|service| {
        let file = service.parent_file();
        let methods: Vec<String> = service
            .methods()
            .map(|m| m.full_name().to_owned())
            .collect();
        named(&file, methods, service.full_name())
    });
    let messages = pool.all_messages().flat_map(|message| {
        let fields = message.fields().map(|field| field.full_name().to_owned());
        let oneofs = message.oneofs().map(|oneof| oneof.full_name().to_owned());
        let parts: Vec<String> = fields.chain(oneofs).collect();
        named(&message.parent_file(), parts, message.full_name())
    });
    let enums = pool.all_enums().flat_map(|of| {
        let values: Vec<String> = of
            .values()
            .map(|value| value.full_name().to_owned())
            .collect();
        named(&of.parent_file(), values, of.full_name())
    });
    let all: Vec<(String, FileDescriptor)> = services.chain(messages).chain(enums).collect();
    all.into_iter()
}

fn named(file: &FileDescriptor, parts: Vec<String>, whole: &str) -> Vec<(String, FileDescriptor)> {
    let all = parts.into_iter().chain([whole.to_owned()]);
    all.map(|name| (name, file.clone())).collect()
}

fn not_found(message: &str) -> MessageResponse {
    MessageResponse::ErrorResponse(ErrorResponse {
        error_code: Code::NotFound.into(),
        error_message: message.to_owned(),
    })
}

/// One of the two versions, whose messages are the same on the wire.
pub(super) type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

impl Reflection {
    /// `longest`: how long a stream may be open.
    ///
    /// # Errors
    /// [`DescriptorError`] where the descriptors that are compiled in contradict each other.
    pub(super) fn new(
        longest: Duration,
        shutdown: CancellationToken,
    ) -> Result<Self, DescriptorError> {
        Ok(Self {
            contract: Arc::new(Contract::read()?),
            longest,
            shutdown,
        })
    }

    fn answer(&self, request: ServerReflectionRequest) -> ServerReflectionResponse {
        let asked = request.message_request.as_ref();
        let answer = asked.map(|asked| self.contract.answer(asked));
        ServerReflectionResponse {
            valid_host: request.host.clone(),
            message_response: Some(answer.unwrap_or_else(|| {
                MessageResponse::ErrorResponse(ErrorResponse {
                    error_code: Code::InvalidArgument.into(),
                    error_message: "message_request: required".to_owned(),
                })
            })),
            original_request: Some(request),
        }
    }

    /// Answers one question after the other, each when the answer before it was taken.
    fn answers<Q: Send + 'static, A: Send + 'static>(
        self,
        mut questions: Streaming<Q>,
        answer: impl Fn(&Self, Q) -> A + Send + 'static,
    ) -> Answers<A> {
        let until = Instant::now() + self.longest;
        Box::pin(async_stream::stream! {
            loop {
                let question = tokio::select! {
                    question = timeout_at(until, questions.next()) => question,
                    () = self.shutdown.cancelled() => {
                        yield Err(status::shutting_down());
                        return;
                    }
                };
                match question {
                    Ok(None) => return,
                    Ok(Some(Ok(question))) => yield Ok(answer(&self, question)),
                    Ok(Some(Err(status))) => {
                        yield Err(status);
                        return;
                    }
                    Err(_) => {
                        let whose = "the longest that a stream of reflection may be open";
                        yield Err(status::deadline_exceeded(whose, self.longest));
                        return;
                    }
                }
            }
        })
    }
}

#[tonic::async_trait]
impl v1::server_reflection_server::ServerReflection for Reflection {
    type ServerReflectionInfoStream = Answers<ServerReflectionResponse>;

    async fn server_reflection_info(
        &self,
        questions: Request<Streaming<ServerReflectionRequest>>,
    ) -> Result<Response<Self::ServerReflectionInfoStream>, Status> {
        let answers = self.clone().answers(questions.into_inner(), Self::answer);
        Ok(Response::new(answers))
    }
}

#[tonic::async_trait]
impl v1alpha::server_reflection_server::ServerReflection for Reflection {
    type ServerReflectionInfoStream = Answers<v1alpha::ServerReflectionResponse>;

    async fn server_reflection_info(
        &self,
        questions: Request<Streaming<v1alpha::ServerReflectionRequest>>,
    ) -> Result<Response<Self::ServerReflectionInfoStream>, Status> {
        let answer = |reflection: &Self, question: v1alpha::ServerReflectionRequest| {
            let question = ServerReflectionRequest::decode(&*question.encode_to_vec());
            let answer = reflection.answer(question.unwrap_or_default());
            let answer = v1alpha::ServerReflectionResponse::decode(&*answer.encode_to_vec());
            answer.unwrap_or_default()
        };
        let answers = self.clone().answers(questions.into_inner(), answer);
        Ok(Response::new(answers))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(question: &MessageRequest) -> MessageResponse {
        Contract::read().unwrap().answer(question)
    }

    #[test]
    fn every_kind_of_name_is_found() {
        for symbol in [
            "aks.access.v1.AccessBrokerService",
            "aks.access.v1.AccessBrokerService.Grant",
            "aks.access.v1.GrantRequest",
            "aks.access.v1.GrantRequest.cluster",
            "aks.access.v1.GrantRequest.LabelsEntry",
            "aks.access.v1.AzureRole",
            "aks.access.v1.AZURE_ROLE_RBAC_READER",
            "google.rpc.ErrorInfo",
            "grpc.health.v1.Health",
            "grpc.reflection.v1.ServerReflection",
            "grpc.reflection.v1alpha.ServerReflection",
        ] {
            let answer = asked(&MessageRequest::FileContainingSymbol(symbol.to_owned()));
            let is_file = matches!(answer, MessageResponse::FileDescriptorResponse(_));
            assert!(is_file, "{symbol}: {answer:?}");
        }
    }

    #[test]
    fn an_unknown_name_is_an_answer() {
        for question in [
            MessageRequest::FileContainingSymbol("no.such.Thing".to_owned()),
            MessageRequest::FileByFilename("no/such.proto".to_owned()),
        ] {
            let MessageResponse::ErrorResponse(error) = asked(&question) else {
                panic!("{question:?} is answered");
            };
            assert_eq!(error.error_code, i32::from(Code::NotFound));
        }
    }

    #[test]
    fn the_files_that_a_file_needs_are_there() {
        let contract = Contract::read().unwrap();
        for (name, file) in &contract.files {
            let file = prost_reflect::prost_types::FileDescriptorProto::decode(&**file).unwrap();
            for needed in &file.dependency {
                assert!(contract.files.contains_key(needed), "{name} needs {needed}");
            }
        }
    }
}
