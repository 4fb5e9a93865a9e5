"""The shapes of a playbook's other files: brand, stages, segments, topics, messages and the catalogue of events.

Editors complete and check from these classes (`shared.language.schema`); the texts of the fields are what they show.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    ConfigDict,
    Field,
    model_validator,
)

from shared.language.fields import (
    CouponCode,
    Currency,
    EventName,
    ExpressionText,
    Line,
    Locale,
    LongerDuration,
    Mailbox,
    Name,
    QuietHoursText,
    Rate,
    Text,
    Timezone,
    Url,
    Variable,
    refusal,
)
from shared.language.problems import did_you_mean, listed, quoted
from shared.language.sections import Section, Tolerant


class StagesFile(Section):
    """The stages of the relationship. The first whose condition holds is the customer's stage."""

    noun: ClassVar[str] = "field"

    stages: Annotated[dict[Name, ExpressionText], Field(min_length=1)] = Field(
        description="Name and condition of each stage, the first match from the top; the last condition is true."
    )


class SegmentEntry(Section):
    """A named group that customers enter and leave as its condition turns true and false."""

    noun: ClassVar[str] = "segment field"

    title: Line | None = Field(None, description="What people call it, in reports.")
    when: ExpressionText = Field(
        description="The condition. It is watched, and acts when it turns true or false, also when only time passes.",
        examples=['count("Order Completed") >= 3'],
    )


class SegmentsFile(Section):
    """Named groups of customers."""

    noun: ClassVar[str] = "field"

    segments: dict[Name, Annotated[SegmentEntry, Tolerant]] = Field(description="The segments, by name.")


class TopicEntry(Section):
    """What a customer can opt out of."""

    noun: ClassVar[str] = "topic field"

    title: Line = Field(description="What customers read on the unsubscribe page.", examples=["Cart reminders"])
    description: Text = Field("", description="One sentence about what one gets; customers read it.")
    kind: Literal["promotional", "service", "transactional"] = Field(
        description="promotional: advertising. service: helps with what was bought. transactional: must reach the "
        "customer (a receipt), so it ignores caps, quiet hours and opt-outs.",
        examples=["promotional"],
    )
    default: Literal["opt_in", "opt_out"] | None = Field(
        None,
        description="What silence means. opt_in: no mail until the customer said yes. opt_out: mail until the customer "
        "said no. Unless given: opt_in for promotional topics, opt_out for the others.",
    )


class TopicsFile(Section):
    """Subscription topics."""

    noun: ClassVar[str] = "field"

    topics: dict[Name, Annotated[TopicEntry, Tolerant]] = Field(description="The topics, by name.")


class CapEntry(Section):
    """So many messages of a channel to one customer in so long a time."""

    noun: ClassVar[str] = "cap field"

    limit: int = Field(ge=1, le=1000, description="How many at most.", examples=["1"])
    within: LongerDuration = Field(description="In how long, counted back from now.", examples=["1d"])


class Caps(Section):
    """A limit for each channel."""

    noun: ClassVar[str] = "channel"
    email: list[CapEntry] = Field([], description="For mail: [{limit: 1, within: 1d}, {limit: 3, within: 7d}].")
    sms: list[CapEntry] = Field([], description="For text messages: [{limit: 1, within: 7d}].")
    push: list[CapEntry] = Field([], description="For push notifications: [{limit: 1, within: 1d}].")


class BrandFile(Section):
    """Who sends, and the house rules."""

    noun: ClassVar[str] = "field"

    name: Line = Field(description="The brand's name, as customers know it.", examples=["Lamp & Light"])
    sender: Mailbox = Field(
        description="Who mails come from: an address, with a name before it where wanted.",
        examples=["Lamp & Light <hello@lamps.example>"],
    )
    reply_to: Mailbox | None = Field(None, description="Where answers go, if not to the sender.")
    postal_address: Text = Field(
        "", description="Your postal address, for the foot of every mail; the law asks for it in many countries."
    )
    timezone: Timezone = Field("UTC", description="For customers whose own is not known.", examples=["Europe/Oslo"])
    locale: Locale = Field(
        "en", description="The language of the messages, and of customers whose own is not known.", examples=["en"]
    )
    currency: Currency = Field("EUR", description="What sums of money are counted in.")
    rates: dict[Currency, Rate] = Field(
        {}, description="What one unit of another currency is worth in yours. Sums without a rate are not added."
    )
    urls: dict[Variable, Url] = Field(
        {}, description="Web addresses for templates: shop: https://… is urls.shop there."
    )
    quiet_hours: QuietHoursText | None = Field(
        None, description="No mail between these, in the customer's local time: 21:00-08:00.", examples=["21:00-08:00"]
    )
    caps: Annotated[Caps, Tolerant] = Field(
        Caps.model_validate({}), description="How often a customer hears from you at most, across all journeys."
    )
    carts: Literal["derived", "sent"] = Field(
        "derived",
        description="derived: Cart Updated and Cart Emptied are made from Product Added, Product Removed and Order "
        "Completed. sent: the shop sends them itself.",
    )
    opens: Literal["tracked", "untracked"] = Field(
        "tracked",
        description="tracked: each mail has an image of one pixel, which tells that it is opened. untracked: none has.",
    )
    spend: ExpressionText | None = Field(
        None,
        description="What customer.spend_percentile ranks customers by: a sum over all time. If not given, "
        'sum("Order Completed", "total").',
        examples=['sum("Order Completed", "revenue")'],
    )


class PushFile(Section):
    """A push notification. Each field is a template."""

    noun: ClassVar[str] = "push field"

    title: Line = Field(description="What stands above, in one line.", examples=["Your lamps are waiting"])
    body: Text = Field(description="What it says.", examples=["We kept your cart."])
    url: Line | None = Field(None, description="Where it leads: a web address, or one of your app.")


class CouponFile(Section):
    """A pool of coupons: made from a pattern, or given out from a list. Its name is the file's."""

    noun: ClassVar[str] = "coupon field"

    title: Line | None = Field(None, description="What people call it, in reports.")
    prefix: CouponCode | None = Field(None, description="What each code begins with: SPRING-.", examples=["SPRING-"])
    length: int | None = Field(
        None,
        ge=6,
        le=40,
        description="How many letters and digits follow the prefix; 10 unless given. None is easily mistaken for "
        "another.",
    )
    limit: int | None = Field(None, ge=1, le=100_000_000, description="How many codes there are at most.")
    expires: LongerDuration | None = Field(
        None, description="How long a code can be used, from when it is issued: 14d. Your shop has to see to it."
    )
    codes: str | list[CouponCode] | None = Field(
        None,
        description="Codes that your shop has made: a CSV file beside this one, such as spring.csv, or a short list.",
    )

    announce: Literal["csv", "webhook"] = Field(
        "csv",
        description="How your shop learns of the codes. csv: it takes what `rapport coupons export` writes. webhook: "
        "each code is told to url when it is issued.",
    )
    url: Url | None = Field(
        None, description="The address that is called with each code, signed.", examples=["https://shop.example/hooks"]
    )

    @model_validator(mode="after")
    def _announced_somewhere(self) -> CouponFile:
        if self.announce == "webhook" and self.url is None:
            raise refusal("announce: webhook calls a web address, and none is named.", "Add url: https://….")
        if self.url is not None and self.announce != "webhook":
            raise refusal("nobody calls this url.", "Add announce: webhook, or remove url.")
        return self

    @model_validator(mode="after")
    def _made_or_listed(self) -> CouponFile:
        if self.codes is not None and (self.prefix, self.length, self.limit) != (None, None, None):
            raise refusal("codes are listed here, and prefix, length and limit are for those that are made.",
                          "Keep codes, or the others.")  # fmt: skip
        return self


class MessageFile(Section):
    """What belongs to a message beside its templates."""

    noun: ClassVar[str] = "field"

    title: Line | None = Field(None, description="What people call it, in reports.")
    preheader: Line | None = Field(
        None, description="The line that mail programs show beside the subject. May hold {{ … }}."
    )
    variables: list[Variable] = Field(
        [], description="Names that every journey which sends this message must give under with."
    )


class PropertySchema(Section):
    """A property of an event, as JSON Schema."""

    model_config = ConfigDict(extra="allow")
    noun: ClassVar[str] = "property field"

    type: str | list[str] | None = Field(None, description="string, number, integer, boolean, array, object or null.")
    title: str | None = Field(None, description="What people call it.")
    description: str | None = Field(None, description="What it means.")
    format: str | None = Field(None, description="date-time, date, uri, email …")
    enum: list[Any] | None = Field(None, description="All the values that it can have.")
    items: Annotated[PropertySchema, Tolerant] | None = Field(None, description="What each item of the list is.")
    properties: dict[str, Annotated[PropertySchema, Tolerant]] | None = Field(None, description="The fields inside.")
    required: list[str] | None = Field(None, description="The fields that are always there.")

    @model_validator(mode="after")
    def _known_types(self) -> PropertySchema:
        known = ("string", "number", "integer", "boolean", "array", "object", "null")
        for name in [self.type] if isinstance(self.type, str) else self.type or []:
            if name not in known:
                raise refusal(f"{quoted(name)} is no type.", did_you_mean(name, known, f"Use {listed(known)}."))
        return self


class EventFile(Section):
    """One event of the catalogue: what the shop sends."""

    noun: ClassVar[str] = "field"

    event: EventName = Field(description="Its name, in the past tense.", examples=["Order Completed"])
    title: Line | None = Field(None, description="What people call it, in reports.")
    description: Text = Field("", description="When the shop sends it.")
    properties: dict[str, Annotated[PropertySchema, Tolerant]] = Field(
        {}, description="Its properties, each as JSON Schema."
    )
    required: list[str] = Field([], description="The properties that are always there.")
