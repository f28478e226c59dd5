//! `SignCertificate`: an SVID only for an account with an enrolled pod on the calling node.

use mesh_common::api::v1;
use tonic::Status;

use super::Shared;
use crate::ca::Request;

pub(super) fn sign(
    shared: &Shared,
    node: &str,
    csr: &[u8],
) -> Result<v1::SignCertificateResponse, Status> {
    let request = Request::parse(csr).map_err(|error| {
        let reason = format!("signing request refused: {error}");
        if shared.refusals.is_new(format!("{node} {reason}")) {
            tracing::warn!(node, "{reason}");
        }
        Status::invalid_argument(reason)
    })?;
    let identity = request.identity();
    if !shared.mesh.pictures().borrow().runs(node, identity) {
        let reason = format!("no enrolled pod of {identity} runs on node {node}");
        if shared.refusals.is_new(reason.clone()) {
            tracing::warn!(node, %identity, "certificate refused: {reason}");
        }
        return Err(Status::permission_denied(reason));
    }
    let chain = shared.authority.issue_svid(identity, &request).map_err(|error| {
        tracing::error!(node, %identity, "certificate not issued: {error}");
        Status::internal("the certificate authority failed; its log says why")
    })?;
    tracing::info!(node, %identity, "certificate issued");
    let der = |certificate: rustls_pki_types::CertificateDer<'_>| certificate.to_vec().into();
    Ok(v1::SignCertificateResponse {
        chain: chain.into_iter().map(der).collect(),
        trust_bundle: shared.authority.trust_bundle().into_iter().map(der).collect(),
    })
}
