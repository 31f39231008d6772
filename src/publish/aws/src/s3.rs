//! Objects of S3, written in parts.

use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{ChecksumAlgorithm, CompletedMultipartUpload, CompletedPart};
use bytes::Bytes;

use crate::{Error, Region};

/// An object that is being written.
#[derive(Debug, Clone, Copy)]
pub struct Upload<'a> {
    /// The bucket.
    pub bucket: &'a str,
    /// The object's name there.
    pub key: &'a str,
    /// Which upload of this object; AWS's word for it.
    pub id: &'a str,
}

/// A part of an object that has arrived.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// Its number, from 1 to 10,000.
    pub number: i32,
    /// What S3 calls its content.
    pub etag: String,
    /// SHA-256 of its bytes, in Base64.
    pub sha256: String,
}

/// An object's bytes on their way.
#[derive(Debug)]
pub struct Body(ByteStream);

impl Body {
    /// The next of them; none at their end.
    pub async fn next(&mut self) -> Option<Result<Bytes, Error>> {
        let failed = |error: aws_sdk_s3::primitives::ByteStreamError| Error {
            service: "S3",
            operation: "GetObject",
            code: None,
            message: error.to_string(),
        };
        self.0.next().await.map(|bytes| bytes.map_err(failed))
    }
}

impl Region {
    /// Begins to write an object. Returns the upload's identifier.
    pub async fn create_upload(&self, bucket: &str, key: &str, labels: &[(&str, &str)]) -> Result<String, Error> {
        let mut request = self.s3.create_multipart_upload().bucket(bucket).key(key);
        for (name, value) in labels {
            request = request.metadata(*name, *value);
        }
        // Each part is sent with its digest, which S3 compares.
        let request = request.checksum_algorithm(ChecksumAlgorithm::Sha256);
        let answer = request.send().await.map_err(|error| Error::of("S3", "CreateMultipartUpload", error))?;
        Error::expect("S3", "CreateMultipartUpload", answer.upload_id)
    }

    /// Writes a part: of at least 5 MiB, but for the last. `sha256` is that of `data`, in Base64.
    pub async fn put_part(&self, to: Upload<'_>, number: i32, data: Bytes, sha256: String) -> Result<Part, Error> {
        let request = self
            .s3
            .upload_part()
            .bucket(to.bucket)
            .key(to.key)
            .upload_id(to.id)
            .part_number(number)
            .checksum_algorithm(ChecksumAlgorithm::Sha256)
            .checksum_sha256(&sha256)
            .body(ByteStream::from(data));
        let answer = request.send().await.map_err(|error| Error::of("S3", "UploadPart", error))?;
        let etag = Error::expect("S3", "UploadPart", answer.e_tag)?;
        Ok(Part { number, etag, sha256 })
    }

    /// Makes one object of its parts.
    pub async fn complete_upload(&self, to: Upload<'_>, parts: &[Part]) -> Result<(), Error> {
        let part = |Part { number, etag, sha256 }: &Part| {
            CompletedPart::builder().part_number(*number).e_tag(etag).checksum_sha256(sha256).build()
        };
        let parts = CompletedMultipartUpload::builder().set_parts(Some(parts.iter().map(part).collect())).build();
        let request = self.s3.complete_multipart_upload().bucket(to.bucket).key(to.key).upload_id(to.id);
        let answer = request.multipart_upload(parts).send().await;
        answer.map(drop).map_err(|error| Error::of("S3", "CompleteMultipartUpload", error))
    }

    /// Gives up writing an object; what has arrived goes.
    pub async fn abort_upload(&self, to: Upload<'_>) -> Result<(), Error> {
        let request = self.s3.abort_multipart_upload().bucket(to.bucket).key(to.key).upload_id(to.id);
        match request.send().await.map_err(|error| Error::of("S3", "AbortMultipartUpload", error)) {
            Err(error) if !error.is_not_found() => Err(error),
            _ => Ok(()),
        }
    }

    /// The uploads of an object that were begun and neither completed nor given up.
    pub async fn uploads(&self, bucket: &str, key: &str) -> Result<Vec<String>, Error> {
        let answer = self.s3.list_multipart_uploads().bucket(bucket).prefix(key).send().await;
        let answer = answer.map_err(|error| Error::of("S3", "ListMultipartUploads", error))?;
        let of_this = answer.uploads.unwrap_or_default().into_iter().filter(|upload| upload.key() == Some(key));
        Ok(of_this.filter_map(|upload| upload.upload_id).collect())
    }

    /// Size of an object in bytes, if it is there.
    pub async fn object_size(&self, bucket: &str, key: &str) -> Result<Option<u64>, Error> {
        let answer = self.s3.head_object().bucket(bucket).key(key).send().await;
        match answer.map_err(|error| Error::of("S3", "HeadObject", error)) {
            Err(error) if error.is_not_found() => Ok(None),
            answer => Ok(answer?.content_length.and_then(|length| u64::try_from(length).ok())),
        }
    }

    /// The region that a bucket is in, if this one can be told; an error if the bucket is not `owner`'s.
    pub async fn bucket_region(&self, bucket: &str, owner: Option<&str>) -> Result<Option<String>, Error> {
        const HEADER: &str = "x-amz-bucket-region";
        let request = self.s3.head_bucket().bucket(bucket).set_expected_bucket_owner(owner.map(str::to_owned));
        match request.send().await {
            Ok(answer) => Ok(answer.bucket_region().map(str::to_owned)),
            Err(error) => {
                let headers = error.raw_response().map(|response| response.headers());
                let region = headers.and_then(|headers| headers.get(HEADER)).map(str::to_owned);
                match region {
                    // Of a bucket elsewhere S3 says where, and of one that is somebody else's too.
                    Some(region) if region != self.name => Ok(Some(region)),
                    _ => Err(Error::of("S3", "HeadBucket", error)),
                }
            }
        }
    }

    /// Names of the objects that begin with `prefix`, in their order; at most `most` and perhaps a few more.
    pub async fn objects(
        &self,
        bucket: &str,
        prefix: &str,
        owner: Option<&str>,
        most: usize,
    ) -> Result<Vec<String>, Error> {
        let mut names = Vec::new();
        let mut next = None;
        loop {
            let request = self.s3.list_objects_v2().bucket(bucket).prefix(prefix);
            let request = request.set_expected_bucket_owner(owner.map(str::to_owned)).set_continuation_token(next);
            let answer = request.send().await.map_err(|error| Error::of("S3", "ListObjectsV2", error))?;
            names.extend(answer.contents.unwrap_or_default().into_iter().filter_map(|object| object.key));
            next = answer.next_continuation_token;
            if names.len() > most || next.is_none() {
                return Ok(names);
            }
        }
    }

    /// An object's bytes, as they come.
    pub async fn open_object(&self, bucket: &str, key: &str, owner: Option<&str>) -> Result<Body, Error> {
        let request = self.s3.get_object().bucket(bucket).key(key);
        let answer = request.set_expected_bucket_owner(owner.map(str::to_owned)).send().await;
        answer.map(|answer| Body(answer.body)).map_err(|error| Error::of("S3", "GetObject", error))
    }

    /// The bytes of a small object, if it is there.
    pub async fn object(&self, bucket: &str, key: &str) -> Result<Option<Bytes>, Error> {
        let answer = self.s3.get_object().bucket(bucket).key(key).send().await;
        let answer = match answer.map_err(|error| Error::of("S3", "GetObject", error)) {
            Err(error) if error.is_not_found() => return Ok(None),
            answer => answer?,
        };
        let bytes = answer.body.collect().await.map_err(|error| Error {
            service: "S3",
            operation: "GetObject",
            code: None,
            message: error.to_string(),
        })?;
        Ok(Some(bytes.into_bytes()))
    }

    /// Writes a small object in one go.
    pub async fn put_object(&self, bucket: &str, key: &str, kind: &str, data: Bytes) -> Result<(), Error> {
        let request = self.s3.put_object().bucket(bucket).key(key).content_type(kind).body(ByteStream::from(data));
        let answer = request.checksum_algorithm(ChecksumAlgorithm::Sha256).send().await;
        answer.map(drop).map_err(|error| Error::of("S3", "PutObject", error))
    }

    /// Removes an object; one that is not there is removed already.
    pub async fn delete_object(&self, bucket: &str, key: &str) -> Result<(), Error> {
        let answer = self.s3.delete_object().bucket(bucket).key(key).send().await;
        answer.map(drop).map_err(|error| Error::of("S3", "DeleteObject", error))
    }
}
