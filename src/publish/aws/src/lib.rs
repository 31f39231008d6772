//! What goldsmith asks of AWS, behind plain types.
//!
//! ```text
//!   Aws ── credentials by AWS's usual chain, or a role that was assumed with them
//!    └──► Region ── ebs.rs   blocks of snapshots
//!                   ec2.rs   snapshots, images
//!                   template.rs  launch templates
//!                   s3.rs    objects, in parts
//!                   ssm.rs   parameters
//!                   sns.rs   messages
//! ```
//!
//! The SDK repeats what AWS throttles or fails to answer, with growing waits of random length; nothing here repeats anything
//! on top of that. Source of all limits: the API references of the services.

mod ebs;
mod ec2;
mod error;
mod lifecycle;
mod s3;
mod sns;
mod ssm;
mod template;

use std::time::Duration;

use aws_config::retry::RetryConfig;
use aws_config::stalled_stream_protection::StalledStreamProtectionConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, SdkConfig};
use aws_sdk_s3::config::{RequestChecksumCalculation, ResponseChecksumValidation};

pub use bytes::Bytes;
pub use ebs::{BLOCK, NewSnapshot};
pub use ec2::{
    BootMode, Copy, ImageState, Import, ImportState, LaunchPermission, Registration, Snapshot, SnapshotState,
};
pub use error::Error;
pub use lifecycle::ImageUse;
pub use s3::{Body, Part, Upload};
pub use ssm::{Parameter, ParameterType};
pub use template::TemplateVersion;

/// Labels: names and values.
pub type Tags = [(String, String)];

/// The SDK gives up on a request after so many attempts. A service that throttles an upload does so for seconds.
const ATTEMPTS: u32 = 8;
/// How long an upload may stand still before the SDK gives it up and begins again. A slow line stands still for longer
/// than the SDK's own 20 s, while other parts of the same upload take it.
const STALL: Duration = Duration::from_secs(90);

/// Where services are, if not where AWS has them.
#[derive(Debug, Clone, Default)]
pub struct Endpoints {
    /// The address of all services.
    pub all: Option<String>,
    /// That of S3, which may be somebody else's.
    pub s3: Option<String>,
}

/// Somebody who may ask AWS for something.
#[derive(Debug, Clone)]
pub struct Aws {
    config: SdkConfig,
    endpoints: Endpoints,
}

impl Aws {
    /// Whoever the environment, the user's configuration files or the machine's role say: AWS's usual chain. Nothing is sent
    /// before something is asked.
    pub async fn connect(endpoints: Endpoints) -> Self {
        let stalls = StalledStreamProtectionConfig::enabled().grace_period(STALL).build();
        let mut config = aws_config::defaults(BehaviorVersion::v2026_01_12())
            .retry_config(RetryConfig::standard().with_max_attempts(ATTEMPTS))
            .timeout_config(TimeoutConfig::builder().connect_timeout(Duration::from_secs(10)).build())
            .stalled_stream_protection(stalls);
        if let Some(all) = &endpoints.all {
            config = config.endpoint_url(all);
        }
        Self { config: config.load().await, endpoints }
    }

    /// What may be asked in one region.
    pub fn region(&self, name: &str) -> Region {
        let config = self.config.to_builder().region(aws_config::Region::new(name.to_owned())).build();
        let s3 = {
            let mut s3 = aws_sdk_s3::config::Builder::from(&config);
            let endpoint = self.endpoints.s3.as_ref().or(self.endpoints.all.as_ref());
            if let Some(endpoint) = endpoint {
                // Servers that are not AWS's have no name of their own for each bucket, and not all know the SDK's checksums.
                s3 = s3.endpoint_url(endpoint).force_path_style(true);
                s3 = s3.request_checksum_calculation(RequestChecksumCalculation::WhenRequired);
                s3 = s3.response_checksum_validation(ResponseChecksumValidation::WhenRequired);
            }
            aws_sdk_s3::Client::from_conf(s3.build())
        };
        Region {
            name: name.to_owned(),
            ec2: aws_sdk_ec2::Client::new(&config),
            ebs: aws_sdk_ebs::Client::new(&config),
            ssm: aws_sdk_ssm::Client::new(&config),
            sns: aws_sdk_sns::Client::new(&config),
            sts: aws_sdk_sts::Client::new(&config),
            s3,
        }
    }

    /// Somebody else: who may take on a role, given by its ARN. Its credentials are fetched, and renewed, when needed.
    pub async fn assume(&self, role: &str, region: &str) -> Self {
        let region = aws_config::Region::new(region.to_owned());
        let config = self.config.to_builder().region(region.clone()).build();
        let provider = aws_config::sts::AssumeRoleProvider::builder(role)
            .session_name("goldsmith")
            .region(region)
            .configure(&config)
            .build()
            .await;
        let provider = aws_sdk_s3::config::SharedCredentialsProvider::new(provider);
        let config = config.to_builder().credentials_provider(provider).build();
        Self { config, endpoints: self.endpoints.clone() }
    }

    /// The region that the environment or the user's configuration files name.
    pub fn default_region(&self) -> Option<String> {
        self.config.region().map(ToString::to_string)
    }
}

/// One region, as one account sees it.
#[derive(Debug, Clone)]
pub struct Region {
    /// Its name, such as `eu-central-1`.
    pub name: String,
    ec2: aws_sdk_ec2::Client,
    ebs: aws_sdk_ebs::Client,
    ssm: aws_sdk_ssm::Client,
    sns: aws_sdk_sns::Client,
    sts: aws_sdk_sts::Client,
    s3: aws_sdk_s3::Client,
}

impl Region {
    /// The number of the account that asks.
    pub async fn account(&self) -> Result<String, Error> {
        let answer = self.sts.get_caller_identity().send().await;
        let answer = answer.map_err(|error| Error::of("STS", "GetCallerIdentity", error))?;
        Error::expect("STS", "GetCallerIdentity", answer.account)
    }
}
