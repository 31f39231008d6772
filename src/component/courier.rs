//! What steps get through the host: objects of S3, whose credentials must not enter a guest; documents that others name;
//! and, where that is asked for, downloads.

use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use goldsmith_agent::message::Algorithm;
use tokio::io::AsyncRead;

use crate::document::syntax::Source;

/// An object of S3.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Object {
    /// The bucket.
    pub bucket: String,
    /// The object's name there; of several objects, what their names begin with.
    pub key: String,
    /// The account that the bucket has to belong to.
    pub owner: Option<String>,
}

/// A file on the web.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WebFile {
    /// Its http or https address.
    pub url: String,
    /// The digest that it has to have, in hexadecimal digits.
    pub digest: Option<(Algorithm, String)>,
    /// Whether any certificate will do.
    pub insecure: bool,
}

/// Bytes on their way into a guest.
pub type Content = Box<dyn AsyncRead + Send + Unpin>;
/// Bytes on their way out of a guest.
pub type Outgoing<'a> = BoxStream<'a, std::io::Result<Vec<u8>>>;

/// Carries things between guests and the rest of the world. Failures come as sentences for the step's report.
pub trait Courier: Send + Sync {
    /// Names of the objects that begin as `wanted.key` does, at most `most` of them and one more.
    fn list<'a>(&'a self, wanted: &'a Object, most: usize) -> BoxFuture<'a, Result<Vec<String>, String>>;

    /// An object's bytes.
    fn get<'a>(&'a self, wanted: &'a Object) -> BoxFuture<'a, Result<Content, String>>;

    /// Writes an object.
    fn put<'a>(&'a self, to: &'a Object, content: Outgoing<'a>) -> BoxFuture<'a, Result<(), String>>;

    /// A file's bytes; none if the guest is to download it itself.
    fn download<'a>(&'a self, wanted: &'a WebFile) -> BoxFuture<'a, Result<Option<Content>, String>>;

    /// A document by its ARN, or by its name among the shipped ones.
    fn document<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Arc<Source>, String>>;
}

/// Nobody: guests can have what they can get themselves.
#[derive(Debug, Clone, Copy, Default)]
pub struct Nobody;

impl Nobody {
    fn refuse<'a, T: Send + 'a>(what: &str) -> BoxFuture<'a, Result<T, String>> {
        let refusal = format!("{what} can't be had here");
        async { Err(refusal) }.boxed()
    }
}

impl Courier for Nobody {
    fn list<'a>(&'a self, wanted: &'a Object, _most: usize) -> BoxFuture<'a, Result<Vec<String>, String>> {
        Self::refuse(&format!("s3://{}", wanted.bucket))
    }

    fn get<'a>(&'a self, wanted: &'a Object) -> BoxFuture<'a, Result<Content, String>> {
        Self::refuse(&format!("s3://{}", wanted.bucket))
    }

    fn put<'a>(&'a self, to: &'a Object, _content: Outgoing<'a>) -> BoxFuture<'a, Result<(), String>> {
        Self::refuse(&format!("s3://{}", to.bucket))
    }

    fn download<'a>(&'a self, _wanted: &'a WebFile) -> BoxFuture<'a, Result<Option<Content>, String>> {
        async { Ok(None) }.boxed()
    }

    fn document<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Arc<Source>, String>> {
        Self::refuse(&format!("the document {name}"))
    }
}
