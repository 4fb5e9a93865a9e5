"""The mail that the benchmarks of the mailer send: a cart reminder of 6 KB, with a text part and eight links."""

from __future__ import annotations

from datetime import datetime, timedelta
from uuid import UUID, uuid5

from services.mailer.links import Links
from services.mailer.rendering import Renderer
from shared.contracts.messages import MessageRequested
from shared.language import load
from shared.language.folder import read_folder, shipped
from shared.language.playbook import Playbook

_MAILS = UUID("3b1c52f4-7a0c-5d55-8c0e-1f7f3a2f9a10")
_FOLDER = "messages/cart-reminder/"
_CELL = "padding: 14px 0; vertical-align: top; border-top: 1px solid #e6dccf; font-family: Helvetica, Arial, sans-serif"

_HTML = f"""<!doctype html>
<html lang="en">
<head><meta charset="utf-8" /><title>Your cart at {{{{ brand.name }}}}</title></head>
<body style="margin: 0; background-color: #f4efe8">
<div style="max-width: 600px; margin: 0 auto; padding: 30px 24px; font-family: Georgia, serif; color: #2b2622">
<p style="letter-spacing: 2px"><a href="{{{{ urls.shop }}}}" style="color: #7d4f1f">{{{{ brand.name | upper }}}}</a></p>
<h1 style="margin: 0; font-size: 31px; line-height: 1.2; font-weight: normal">Your cart is just as you left it</h1>
<p style="font-size: 17px; line-height: 1.55">Dear {{{{ traits.first_name }}}},</p>
<p style="font-size: 17px; line-height: 1.55">Something called you away, as it does. What you chose is still in your
cart, and there is no hurry.</p>
<table role="presentation" style="width: 100%; border-collapse: collapse">
{{% for product in trigger.products[:8] %}}
<tr>
<th scope="row" style="{_CELL}; text-align: left; padding-right: 16px; font-weight: normal">
<b><a href="{{{{ product.url }}}}" style="color: #1d1916; text-decoration: none">{{{{ product.name }}}}</a></b>
{{% if product.quantity != 1 %}}<br />{{{{ product.quantity }}}} × {{{{ product.price | money }}}}{{% endif %}}
</th>
<td style="{_CELL}; text-align: right">{{{{ (product.price * product.quantity) | money }}}}</td>
</tr>
{{% endfor %}}
<tr><th scope="row" style="{_CELL}; text-align: left">Total</th>
<td style="{_CELL}; text-align: right">{{{{ trigger.total | money }}}}</td></tr>
</table>
<p><a href="{{{{ urls.cart }}}}?id={{{{ trigger.cart_id | urlencode }}}}" style="color: #ffffff; background: #1f4d46;
padding: 15px 30px; border-radius: 6px; font-family: Helvetica, Arial, sans-serif">Back to my cart</a></p>
<p style="font-size: 17px; line-height: 1.55">Not sure about a size, or whether it dims?
<a href="{{{{ urls.help }}}}">Ask us</a>. A person answers.</p>
<p style="font-size: 13px; line-height: 1.6; color: #665c52">You get this because you asked us to remind you of what you
leave in your cart.<br /><a href="{{{{ unsubscribe_url }}}}">Unsubscribe from cart reminders</a><br />
{{{{ brand.postal_address }}}}</p>
</div>
</body>
</html>
"""

_TEXT = """Dear {{ traits.first_name }},

Something called you away, as it does. What you chose is still in your
cart, and there is no hurry.

{% for product in trigger.products[:8] %}
- {{ product.name }}: {{ (product.price * product.quantity) | money }}
{% endfor %}
Total: {{ trigger.total | money }}

Back to your cart:
{{ urls.cart }}?id={{ trigger.cart_id | urlencode }}

Unsubscribe from cart reminders:
{{ unsubscribe_url }}

{{ brand.postal_address }}
"""


def playbook() -> Playbook:
    """The shipped playbook with this letter in it, at any hour and to everybody, its caps in force."""
    files = {path: data for path, data in read_folder(shipped()).items() if not path.startswith(_FOLDER)}
    brand = files["rapport.yaml"].decode().splitlines()
    files["rapport.yaml"] = "\n".join(line for line in brand if not line.startswith("quiet_hours")).encode()
    files["topics.yaml"] = files["topics.yaml"].replace(b"opt_in\n", b"opt_out\n")
    files[_FOLDER + "message.yaml"] = b"title: A cart that was left\n"
    files[_FOLDER + "subject.txt"] = b"You left a light on, {{ traits.first_name }}\n"
    files[_FOLDER + "body.html"] = _HTML.encode()
    files[_FOLDER + "body.txt"] = _TEXT.encode()
    return load(files)


def renderer() -> Renderer:
    return Renderer(playbook(), Links(b"s" * 32, "https://mail.lamps.example/mailer"))


def request(number: int, now: datetime) -> MessageRequested:
    """What is asked for customer `number`: one mail each, so that no cap holds any."""
    products = [
        {"name": f"Lamp {n}", "price": 49.5, "quantity": n, "url": f"https://lamps.example/lamps/{n}?from=cart"}
        for n in range(1, 6)
    ]
    return MessageRequested(
        as_of=now,
        id=str(uuid5(_MAILS, str(number))),
        customer=f"customer-{number}",
        address=f"customer-{number}@example.org",
        message="cart-reminder",
        topic="cart-reminders",
        journey="abandoned-cart",
        enrollment=f"enrollment-{number}",
        step="cart-reminder",
        due=now,
        expires=now + timedelta(hours=72),
        locale="en-GB",
        timezone="Europe/Oslo",
        data={
            "customer": {"key": f"customer-{number}", "stage": "convert", "segments": ["vip"]},
            "traits": {"first_name": "Åse", "last_name": f"Number {number}"},
            "trigger": {"cart_id": f"cart-{number}", "total": 742.5, "currency": "EUR", "products": products},
            "key": f"cart-{number}",
            "with": {},
        },
    )
