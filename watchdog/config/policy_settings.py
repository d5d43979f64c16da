"""The section ``policy``: when a room counts as abandoned, for each kind of tasks."""

from typing import Annotated, Self

from pydantic import Field, model_validator

from watchdog.config.section import Section
from watchdog.core.model import Mode, OnMaxAge, Verify
from watchdog.core.policy import Policy


class KindPolicyConfig(Section):
    """What differs from the policy for a kind of tasks; None: as ``core.policy.limits`` says."""

    grace_seconds: Annotated[float, Field(ge=0, le=1800)] | None = None
    never_joined_grace_seconds: Annotated[float, Field(ge=0, le=1800)] | None = None


class WindowPolicyConfig(KindPolicyConfig):
    """The same for a kind that ZEGO ends when its room stays empty."""

    max_idle_seconds: Annotated[float, Field(ge=5, le=86400)] | None = None
    safety_margin_seconds: Annotated[float, Field(ge=0, le=600)] | None = None


class KindsConfig(Section):
    agent: WindowPolicyConfig = WindowPolicyConfig()
    digital_human: KindPolicyConfig = KindPolicyConfig()
    player: KindPolicyConfig = KindPolicyConfig()
    recording: WindowPolicyConfig = WindowPolicyConfig()


class PolicyConfig(Section):
    """When a room counts as abandoned; names and defaults as in ``watchdog.core.policy.Policy``."""

    mode: Mode = Mode.ENFORCE
    verify: Verify = Verify.REQUIRED
    max_idle_seconds: Annotated[float, Field(ge=30, le=1800)] = 150
    grace_seconds: Annotated[float, Field(ge=0, le=1800)] = 45
    never_joined_grace_seconds: Annotated[float, Field(ge=0, le=1800)] = 90
    safety_margin_seconds: Annotated[float, Field(ge=0, le=600)] = 20
    confirm_seconds: Annotated[float, Field(ge=0, le=300)] = 5
    hint_max_age_seconds: Annotated[float, Field(gt=0, le=86400)] = 300
    verification_max_age_seconds: Annotated[float, Field(gt=0, le=60)] = 5
    gap_seconds: Annotated[float, Field(gt=0, le=3600)] = 60
    rejoin_watch_seconds: Annotated[float, Field(ge=0, le=86400)] = 600
    max_age_seconds: Annotated[float, Field(ge=0, le=31_536_000)] = 0
    on_max_age: OnMaxAge = OnMaxAge.ALERT
    kinds: KindsConfig = KindsConfig()

    @property
    def rules(self) -> Policy:
        values = self.model_dump(exclude_none=True)
        return Policy(**values | {"kinds": {name: given for name, given in values["kinds"].items() if given}})

    @model_validator(mode="after")
    def _grace_fits_the_window(self) -> Self:
        needed = self.grace_seconds + self.safety_margin_seconds
        if needed > self.max_idle_seconds:
            raise ValueError(
                f"grace_seconds {self.grace_seconds:g} + safety_margin_seconds {self.safety_margin_seconds:g} = "
                f"{needed:g} is more than max_idle_seconds {self.max_idle_seconds:g}: ZEGO would always be first; "
                f"lower grace_seconds to {max(0, self.max_idle_seconds - self.safety_margin_seconds):g} or less"
            )
        return self
