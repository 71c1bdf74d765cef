"""`GET /audit`: whether certificates hold for the images that come, as far as that can be seen without labels."""

from fastapi import APIRouter

from service.api.deps import ServiceDep
from service.api.schemas import CertificateRef, Strict, certificate_ref, problems
from service.engine.evidence import ALPHA

router = APIRouter(tags=["budget"])


class AuditedCertificate(Strict):
    """`audited` images left by its thresholds, `disagreed` of them with the last exit; of those `left_out` that is not
    known. `broken_at` is UTC, null while it holds."""

    certificate: CertificateRef
    thresholds: list[float | None]
    audited: int
    disagreed: int
    left_out: int
    wealth: float
    broken_at: str | None


class AuditResponse(Strict):
    """`share` of images that is drawn, and how many of those are on their way."""

    share: float
    pending: int
    broken_at_wealth: float
    certificates: list[AuditedCertificate]


@router.get("/audit", response_model=AuditResponse, responses=problems(401), summary="Do certificates still hold?")
async def get_audit(service: ServiceDep) -> AuditResponse:
    """The evidence against each certificate of disagreement, from images drawn by lot that went on to the last exit
    after they were answered. At a `wealth` of `broken_at_wealth` one is broken, and quoted no more."""
    return AuditResponse(
        share=service.settings.audit_share,
        pending=service.audit.pending,
        broken_at_wealth=1 / ALPHA,
        certificates=[
            AuditedCertificate(
                certificate=certificate_ref(each.certificate),
                thresholds=list(each.certificate.point.thresholds),
                audited=each.seen,
                disagreed=each.disagreed,
                left_out=each.left_out,
                wealth=each.wealth,
                broken_at=each.broken_at,
            )
            for each in service.audit.evidence
        ],
    )
