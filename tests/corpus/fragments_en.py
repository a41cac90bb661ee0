"""English fragments with identifiers: support mails, payroll, banking, clinics, shipping, and developers' pastes.

The slots are those of `fragments_ko`.
"""

from typing import Final

POSITIVE: Final[dict[str, str]] = {
    "mail-refund": """«=Hi|Hello|Dear team»,

my order «order» from «date» never arrived (tracking «tracking»). Please call me on «intl» or write to «email».

«enname»""",
    "mail-headers": """From: «enname» <«email»>
To: «email», "«enname»" <«email»>
Cc: «email»
Date: «timestamp»
Message-ID: <«uuid»>
Subject: «=Q3 forecast|Invoice overdue|Access request»

Could you reach me at «intl» before «clock»?""",
    "mail-signature": """Best regards,
«enname» | «encompany»
Phone: «intl» | Seoul office: «phone!»
Mail: «email».""",
    "mail-sentence": "Contact «email», or if that bounces, «email». My direct line is «intl», ext. «n».",
    "mail-markdown": "Ask [«enname»](mailto:«email») («intl») about ticket #«id».",
    "chat": """[«clock»] «enname»: can you share the number of the Seoul warehouse?
[«clock»] «enname»: «phone!»
[«clock»] «enname»: and the manager's mobile? «phone!» right?
[«clock»] «enname»: no, it's «intl»""",
    "payroll-table": """| Employee | SSN | Phone | Email |
|---|---|---|---|
| «enname» | «ssn!» | «intl» | «email» |
| «enname» | «ssn!» | «intl» | «email» |""",
    "payroll-csv": """employee_id,name,ssn,email,start_date,salary
«id»,«enname»,«ssn!»,«email»,«date»,«id»
«id»,«enname»,«ssn!»,«email»,«date»,«id»""",
    "payroll-ask": "Her Social Security number is «ssn» and she started on «date»; draft the W-4 cover letter to "
    "«email».",
    "ssn-line": "SSN: «ssn»\nDOB: «date»\nName: «enname»",
    "ssn-alone": "Background check for «enname» («ssn!»), case «id», requested «timestamp»",
    "ssn-claim": "Claimant «enname», SSN «ssn», spouse SSN «ssn», monthly benefit $«amount», claim no. «order»",
    "bank-wire": """Please wire EUR «amount» to
IBAN: «iban»
BIC: DEUTDEFF
Beneficiary: «encompany»
Reference: «order»""",
    "bank-two": "We moved from «iban!» to «iban!» last month; invoices before «date» still show the old one.",
    "bank-json": """{"debtor": {"name": "«enname»", "iban": "«iban»"},
 "creditor": {"iban": "«iban»"}, "endToEndId": "«uuid»"}""",
    "bank-iban-text": "The IBAN «iban», which you gave us on «date», was rejected. Is (IBAN «iban») correct instead?",
    "card-decline": "My card «card» was declined at «clock», amount «amount» USD, error code «id». Call «intl» please.",
    "card-alone": "The customer typed «card!» into the chat and then «card!». Write a reply asking not to do that.",
    "card-csv": """txn_id,pan,amount,currency,ts
«id»,«card!»,«id»,EUR,«timestamp»
«id»,«card!»,«id»,USD,«timestamp»""",
    "card-log": """«timestamp» DEBUG payment.charge request={"pan":"«card»","exp":"«n»/«n»","amount":«id»} trace=«md5»
Should this line have been logged at all?""",
    "card-paren": "Refund to the card on file («card»), order «order», agent «enname».",
    "clinic": """Patient: «enname»
SSN: «ssn»
Contact: «intl» / «email»
BP 1«n»/«n», temp 98.«n» F, next visit «date»
Summarise this note for the referral.""",
    "clinic-korea": "Patient «enname», alien registration number (외국인등록번호) «foreigner», "
    "passport no. «passport», mobile «phone»",
    "korea-foreigner": """Onboarding for our Seoul office
Name: «enname»
Foreigner registration number (외국인등록번호): «foreigner»
Residence permit issued «date»; second hire, foreigner registration number «foreigner».""",
    "korea-rental": """Renter: «enname»
Korean driver's license no. (운전면허번호): «licence»
Second driver, license no. (운전면허번호): «licence»
Pick-up «timestamp», deposit KRW «amount»""",
    "travel": """Traveller «enname»
Passport number: «passport»
Phone: «intl»
Flight KE0«n», booking ref «sha», departure «timestamp»""",
    "travel-visa": "Visa form: passport «passport», issued «date»; second applicant passport no. «passport»; email "
    "«email»",
    "shipping": """Ship to: «enname», phone «intl»
Notify: «phone!»
Tracking «tracking», weight «n».«n» kg, declared value $«amount»""",
    "shipping-json": """{
  "order_id": "«order»",
  "customer": {"email": "«email»", "phone": "«intl»"},
  "items": [{"sku": "«article»", "qty": «n»}],
  "created": "«timestamp»"
}""",
    "korea-hr": "For the Korean subsidiary: resident registration number (주민등록번호) «rrn», mobile «phone», "
    "account «bank_account!».",
    "korea-rrn": "Why does our validator reject «rrn!»? It accepts «rrn!» and fails on «badrrn».",
    "korea-vendor": "Vendor «encompany», Korean business registration number (사업자등록번호) «business», "
    "phone «phone», «email»",
    "korea-business": "Both vendors («business!» and «business!») sent duplicate invoices for «amount» KRW.",
    "korea-licence": "Driver's licence (운전면허번호) «licence», issued «date», renter «enname», pays with card "
    "«card».",
    "korea-account": "Deposit the KRW «amount» refund to «bank_account!», account holder «enname» (계좌 확인 완료).",
    "env-file": """OPENAI_API_KEY=«openai»
AWS_ACCESS_KEY_ID=«aws»
AWS_SECRET_ACCESS_KEY=«aws_secret»
GITHUB_TOKEN=«github»
LOG_LEVEL=debug
BUILD=«version»""",
    "python-key": """from openai import OpenAI

client = OpenAI(api_key="«openai»")  # TODO move to vault
print(client.models.list())  # fails since «version»""",
    "curl-key": """curl https://api.openai.com/v1/responses -H "Authorization: Bearer «openai»" -H "X-Trace: «uuid»"
returns 429, why?""",
    "aws-cli": """$ aws configure
AWS Access Key ID [None]: «aws»
AWS Secret Access Key [None]: «aws_secret»
Default region name [None]: ap-northeast-2""",
    "aws-boto": """s3 = boto3.client("s3", aws_access_key_id="«aws»", aws_secret_access_key="«aws_secret»")
s3.upload_file("report-«date».csv", "bucket-«id»", "«sha256»")""",
    "aws-alone": "I committed «aws!» by accident in «sha». How do I rotate it?",
    "git-remote": """$ git push https://oauth2:«github»@github.com/acme/api.git main
remote: error: GH013 for commit «sha»""",
    "github-actions": """env:
  GH_TOKEN: «github!»
  NODE_VERSION: «version»
steps:
  - uses: actions/checkout@v4""",
    "jwt-header": """GET /v1/me HTTP/1.1
Host: api.acme-labs.io
Authorization: Bearer «jwt»
X-Trace: «md5»""",
    "jwt-debug": "Decode this and tell me why it's expired: «jwt!» (server time «epoch»)",
    "jwt-cookie": """Set-Cookie: session=«jwt!»; Path=/; HttpOnly
Set-Cookie: lang=en; Max-Age=«id»""",
    "pem": """My nginx refuses this key:

«pem!»

nginx/«version», OpenSSL 3.0.«n»""",
    "service-account": """{
  "type": "service_account",
  "project_id": "acme-«id»",
  "private_key_id": "«sha256»",
  "private_key": "«pem_json»\\n",
  "client_id": "«long»"
}""",
    "kube-secret": """apiVersion: v1
kind: ConfigMap
data:
  openai: "«openai!»"
  admin_email: «email»
  image: registry.acme.internal/api:«version»""",
    "sql": """UPDATE customers SET email = '«email»', phone = '«intl»' WHERE id = «id»;
INSERT INTO payees (iban, name) VALUES ('«iban»', '«enname»');""",
    "log": """«timestamp» INFO auth: login ok user=«email» ip=«ip» session=«uuid»
«timestamp» WARN sms: undelivered to=«intl» attempt=«n» id=«long»
«timestamp» ERROR auth: reset failed for «email»: «hex»""",
    "stack-trace": """Traceback (most recent call last):
  File "/srv/app/mail.py", line «id», in send
    raise Undeliverable("«email»")
mail.Undeliverable: «email» (SMTP 550, queue id «sha»)""",
    "yaml": """on_call:
  - name: «enname»
    phone: "«intl»"
    email: «email»
  - name: «enname»
    phone: "«phone»"
    email: «email»""",
    "xml": '<contact id="«id»"><mail>«email»</mail><tel>«intl»</tel><since>«date»</since></contact>',
    "invoice": """INVOICE «order»                                   «date»
Bill to: «encompany», «email», «intl»
Pay to:  «iban»
Item «article»   qty «n»   «amount»
Total                                            «amount» EUR""",
    "resume": """«enname»
«email» | «intl» | github.com/dev«id»
Experience: «encompany» (2019–2024), cut p99 from «ms» ms to «ms» ms.
Shorten this CV to half a page.""",
    "html": """<footer><a href="mailto:«email»">Mail us</a> or <a href="tel:«intl»">call</a>,
Seoul: <a href="tel:«phone»">«enname»</a>, © «date» «encompany»</footer>
Make this accessible.""",
    "full-width": "Copied from the Korean portal: mobile «phone», card «card», registration «business!». Normalise the "
    "digits.",
}

NEGATIVE: Final[dict[str, str]] = {
    "order": "Where is order «order»? The carrier shows «tracking» as delivered on «timestamp», total $«amount».",
    "invoice": """INVOICE «order»                      «date»
Item            Qty    Unit      Amount
«article»       «n»    «amount»  «amount»
«article»       «n»    «amount»  «amount»
Subtotal «amount»   VAT 19 % «amount»   Total «amount»""",
    "phone-menu": """Rewrite our phone menu: for billing press 1, for shipping press 2, or stay on the line.
In an emergency dial 911. Then ask for «enservice».""",
    "about": "Explain how Luhn works for card numbers, how an IBAN is checked, and why a social security number "
    "has no check digit.",
    "placeholders": "Write to «placeholder» and mention that «placeholder» was charged twice; keep «placeholder» as it "
    "is.",
    "starred": "On file: card «starredcard», phone «starredphone», SSN «starredssn». Is that masked well enough for "
    "our audit?",
    "bad-card": "Test PAN «badcard» must be rejected by the validator; so must «badcard».",
    "bad-iban": "Our validator should reject the sample «badiban», its check digits are wrong.",
    "bad-rrn": "Fixture ids «badrrn» and «badrrn» have impossible dates on purpose.",
    "bad-business": "Part «badbusiness» replaces part «badbusiness» from «date» on; stock «n».",
    "articles": """part,description,qty
«article»,gasket,«n»
«article»,bearing,«n»
«article»,bracket,«n»""",
    "barcodes": "EAN «barcode» and EAN «barcode» scan fine, ISBN «isbn» doesn't. Scanner firmware «version».",
    "versions": """kernel «version»
glibc «version»
nginx «version»
Which of these has the CVE-2024-«id» fix?""",
    "changelog": """## «version» - «date»
- fix #«id»: retry after «n» s («sha»)
- bump @types/node@20.«n».1, react@18.2.«n», pydantic==«version»""",
    "git-log": """commit «sha256»
Merge: «sha» «sha»
Date:   «timestamp»

    Revert "parse epoch «epoch»" (#«id»)""",
    "decorators": """@app.route("/v1/items/<int:item_id>")
@pytest.mark.parametrize("n", [«long», «id»])
@functools.lru_cache(maxsize=«id»)
def test(n): ...  # y = a @ b.T""",
    "python-constants": """MASK = «hex»
SEED = «long»
START_MS = «epochms»
PRIMES = [«id», «id», «long»]
assert hash_of(SEED) == "«md5»\"""",
    "c-code": """static const uint64_t K = «hex»ULL;
static const long long LIMIT = «long»LL;
/* offset «hex», line «id» */
printf("%08x-%04x", K >> 32, LIMIT & 0xffff);""",
    "go-mod": """require (
    golang.org/x/net v0.«n».0
    github.com/acme/pool v0.0.0-20240512103015-abcdef«n»
)
go 1.«n»""",
    "dockerfile": """FROM python:3.11.«n»-slim@sha256:«sha256»
RUN apt-get install -y curl=«version»
EXPOSE 8080
HEALTHCHECK --interval=«n»s CMD curl -f http://«ip»/healthz""",
    "kube-log": """«timestamp» I0«id» «n» controller.go:«n»] pod api-7d9f8b6c5d-x2x«n» rv=«long»
«timestamp» E0«id» «n» reconciler.go:«id»] "failed" uid="«uuid»" gen=«n»""",
    "access-log": """«ip» - - [«timestamp»] "GET /items/«long»?v=«version»&t=«epochms» HTTP/2.0" 200 «id»
«ip» - - [«timestamp»] "PUT /items/«uuid» HTTP/2.0" 409 «id»""",
    "metrics": """http_requests_total{code="200"} «long» «epochms»
process_start_time_seconds 1.7«id»e+09
go_memstats_alloc_bytes «long»""",
    "json-trace": """{"trace_id": "«md5»", "span_id": "«hex»", "ts": «epochms», "duration_ms": «ms»,
 "host": "ip-10-0-«n»-«n»", "seq": «long»}""",
    "sql": """EXPLAIN SELECT id, total FROM orders WHERE id BETWEEN «long» AND «long»
AND created_at > '«timestamp»' AND ref IN ('«order»', '«order»') LIMIT «n»;""",
    "uuids": """«uuid»
«uuid»
«uuid»
Which UUID versions are these? Etag W/"«md5»\"""",
    "hexdump": """What file type is this?
«hexdump»""",
    "image": 'Why doesn\'t <img src="data:image/jpeg;base64,«blob»"> render in «version»?',
    "certificate": """-----BEGIN CERTIFICATE-----
«certificate»
-----END CERTIFICATE-----
Fingerprint SHA-256 «sha256», serial «hex»""",
    "public-key": """-----BEGIN PUBLIC KEY-----
«certificate»
-----END PUBLIC KEY-----
How do I convert this to JWK?""",
    "key-docs": """export OPENAI_API_KEY="«nokey»"   # see the console
export GITHUB_TOKEN=«nokey»
The header is `Authorization: Bearer <token>`. Document this for new hires.""",
    "css": """.sk-loading-spinner-container-wrapper { margin: «n»px; color: #«id»; }
.btn-010-primary:hover { width: calc(100% - «n»px); }
@media (min-width: 1024px) { .hero { background: url(hero@2x.png); } }""",
    "coordinates": "Route from «coordinates» to «coordinates», about «n».«n» km; bounding box in WKT please.",
    "network": "Switch port «n»: MAC «mac», VLAN «n», peer «ip», route «ip» via «ip», MTU 9000, firmware «version».",
    "ssh": """deploy@bastion:~$ ping -c «n» «ip»
64 bytes from «ip»: icmp_seq=«n» ttl=«n» time=«ms» ms
root@ip-10-0-«n»-«n»:/# uptime""",
    "dates": "Convert these to ISO 8601: «date», «date», «timestamp», «epoch», «epochms».",
    "cron": "0 «n» * * 1-5 /opt/jobs/run-«version».sh --since «date» --batch «long» >> /var/log/job-«date».log",
    "finance": "Revenue grew from «amount» to «amount» (+«n».«n» %), EPS 1.«n», 10-K filed «date», CUSIP and ticker "
    "to follow.",
    "science": "Mean «n».«n» ± 0.«n», n = «id», p = 0.0«n»; doi:10.1038/s41586-024-0«=7146|8025|6999»-«n», p. «id».",
    "spreadsheet": """A1\tB1\tC1\tD1
«id»\t«amount»\t«date»\t«article»
«id»\t«amount»\t«date»\t«article»""",
    "plain": "«=Summarise|Translate into Korean|Make friendlier»: The release is delayed by «n» days because the "
    "vendor of the «=gateway|scanner|battery» changed its terms. "
    "We expect «amount» units per month and will decide on «date».",
    "regex": r"""Why does ^\d{3}-\d{2}-\d{4}$ not match in `re.match(r"[A-Z]{2}\d+", s)` on line «id» of «sha»?""",
    "jira": "PAY-«id» blocks OPS-«id»; sprint «n» ends «date», build «date».«n», story points «n»",
    "barcode-log": "scan «barcode» ok, scan «barcode» ok, scan «isbn» unknown at «timestamp» lane «n» op «id»",
    "usb": "usb 1-«n»: New USB device found, idVendor=04e8, idProduct=6860, bcdDevice= 4.«n», SerialNumber «sha»",
    "social": "Post by @brightwater_«n» on «date»: «amount» likes, hashtag #launch«id», video length «clock»",
    "sports": "Scores 3-2, 21-19, 7-6(5); season 2024-25, attendance «amount», lap «ms» s, bib «id»",
    "recipe": "Scale this recipe from «n» to «n» servings: 250 g flour, 1/2 tsp salt, bake 35-40 min at 180 C (356 F).",
}
