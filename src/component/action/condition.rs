//! `Assert`.

use super::{Call, Verdict};
use crate::guest;

/// Fails unless the condition holds.
pub(super) async fn assert(call: &Call<'_>) -> Result<Verdict, guest::Error> {
    let Some(condition) = call.condition else {
        return Ok(Verdict::Failed("there is no condition".to_owned()));
    };
    if condition.holds(call.guest, &call.site.working_directory).await? {
        return Ok(Verdict::NOTHING);
    }
    Ok(Verdict::Failed("the condition does not hold".to_owned()))
}
