"""Korean fragments with identifiers: mails, chats, forms, tables and code of people at work.

`«phone»` is an identifier that the words next to it name, `«phone!»` one that stands without them (in a table's row,
too), `«=a|b»` a choice, and every other `«word»` noise from `lookalikes`. Particles are written directly behind a slot,
as Korean glues them.
"""

from typing import Final

POSITIVE: Final[dict[str, str]] = {
    "mail-refund": """«=안녕하세요|안녕하십니까|수고하십니다». «kodate»에 주문한 «name»입니다.
주문번호 «order» 건 환불을 아직 못 받았습니다. 환불 계좌는 «bank_account»입니다.
«=급합니다.|확인 후» «phone»로 연락 주시거나 «email»로 회신 부탁드립니다.""",
    "mail-signature": """첨부드린 견적서(«order») 검토 부탁드립니다.

감사합니다.
«name» «=과장|대리|팀장|책임» | «company»
T. «phone!» M. «phone!»
E. «email»
사업자등록번호 «business»""",
    "mail-forward": """보낸 사람: «name» <«email»>
받는 사람: «name» <«email»>; «name» <«email»>
날짜: «timestamp»
제목: RE: «=납품 일정|회의록 공유|세금계산서 요청|계약서 검토»

말씀하신 내용 확인했습니다. 자세한 건 «phone»으로 전화 주세요.""",
    "chat-number": """«name»: 새 번호 알려줘
«name»: «phone!»
«name»: «=ㅇㅋ|고마워|저장함» 카톡은 «phone!»이야?
«name»: 아니 그건 회사 번호고 «phone!»요""",
    "chat-glued": "«=오늘|내일|이따» «clock»에 «phone»로 전화«=줘|주세요|바랍니다», 안 되면 «phone!»(사무실)으로.",
    "hr-contract": """근로계약서 작성 요청
- 성명: «name»
- 주민등록번호: «rrn»
- 연락처: «phone»
- 급여 계좌: «bank_account»
- 입사일: «kodate»
월 급여는 «amount»원이며, 사내 메일은 «email»입니다.""",
    "hr-table": """| 사번 | 이름 | 주민번호 | 휴대폰 | 이메일 |
|---|---|---|---|---|
| «id» | «name» | «rrn!» | «phone!» | «email» |
| «id» | «name» | «rrn!» | «phone!» | «email» |
| «id» | «name» | «rrn!» | «phone!» | «email» |""",
    "hr-csv": """사번,성명,주민등록번호,입사일,휴대전화
«id»,«name»,«rrn!»,«date»,«phone!»
«id»,«name»,«rrn!»,«date»,«phone!»""",
    "hr-foreign": """외국인 근로자 고용 신고 대상입니다. «enname» 님의 외국인등록번호는 «foreigner»이고
여권번호는 «passport»입니다. 체류기간 만료일 «kodate», 연락처 «phone».""",
    "hr-foreign-short": "외국인등록번호 «foreigner»인 직원의 4대보험 취득 신고서를 «email»로 보내주세요.",
    "hr-family": """연말정산 부양가족 등록
본인 «rrn!»
배우자 «rrn!»
자녀1 «rrn!»
위 주민등록번호 중 «rrn»은 누락 여부를 확인해 주세요.""",
    "rrn-particles": "제 주민번호는 «rrn»«=입니다|이고|이에요|인데|라고 되어 있는데», 배우자는 «rrn!»이며 자녀는 "
    "«rrn!»으로 등록했습니다.",
    "rrn-alone": "(«rrn!») «name» 고객 본인 확인 «=완료|실패|보류» — 상담이력 «uuid»",
    "rrn-break": """주민등록번호
«rrn»
주소 변경 신청합니다. 신청일 «date»""",
    "hospital-reception": """[접수] 환자명 «name» / 주민번호 «rrn» / 보호자 «phone»
등록번호 «id», 진료과 «=내과|정형외과|피부과», 예약 «timestamp»
혈압 «n»/«n», 체온 36.«n»도""",
    "hospital-foreign": "외국인 환자 «enname», 외국인등록번호 «foreigner», 여권 «passport», 보험 청구는 «email»로 안내 "
    "바랍니다.",
    "hospital-referral": """진료의뢰서 요약해줘.
환자: «name» («rrn!»)
의뢰기관: «company» (요양기관 전화 «phone»)
소견: «kodate»부터 흉통 호소, 심전도 정상, 트로포닌 0.0«n» ng/mL""",
    "passport-booking": """항공권 발권 정보
영문명: HONG/GILDONG, 여권번호: «passport», 만료일 «date»
동행: KIM/MINJUN 여권번호 «passport»
예약번호 «sha», 연락처 «phone»""",
    "passport-lost": "여권을 분실했습니다. 여권번호 «passport»이고 재발급 신청은 «kodate»에 했습니다. 문의는 «phone»로 "
    "부탁드려요.",
    "passport-tax": "비거주자 원천징수 대상: 여권번호 «passport», 송금 IBAN «iban», 지급액 USD «amount»",
    "licence-rental": """렌터카 예약 «order»
운전자: «name», 면허번호 «licence», 면허 취득일 «date»
추가 운전자 운전면허번호는 «licence»입니다. 결제 카드 «card»""",
    "licence-police": "교통사고 접수: 운전면허번호 «licence»(«name»), 상대 차량 12가«id», 연락처 «phone» 보험사 "
    "«service»",
    "licence-alone": "본인확인 서류: «licence!» / 발급일 «date» / 담당 «name»",
    "tax-invoice": """전자세금계산서
공급자 «company» 사업자등록번호: «business» 대표 «name»
공급받는자 «company» 사업자등록번호: «business»
작성일자 «date» 공급가액 «amount» 세액 «amount» 승인번호 «date»-«id»-«sha»
이메일 «email»""",
    "business-check": "거래처 등록해야 하는데 사업자번호 «business»«=가|이|는» «=휴업인지|폐업인지|정상인지» "
    "조회하는 방법 알려주세요. 담당자 «email».",
    "business-alone": "«company» («business!») 미수금 «amount»원, «company» («business!») 미수금 «amount»원",
    "business-list": """거래처코드;상호;사업자등록번호;대표전화
«id»;«company»;«business!»;«phone!»
«id»;«company»;«business!»;«phone!»
«id»;«company»;«business!»;«phone!»""",
    "bank-transfer": "«bank_account»로 «amount»원 이체 부탁드립니다. 예금주 «name», «kodate»까지요.",
    "bank-deposit": "입금하실 계좌번호는 «account»이고 예금주는 «company»입니다. 입금 후 «phone»으로 문자 주세요.",
    "bank-wrong": """착오송금 반환 신청
보낸 계좌: «bank_account»
잘못 보낸 계좌: «bank_account»
금액 «amount»원, 일시 «timestamp», 신청인 «name»(«phone»)""",
    "bank-json": """{"은행": "«=국민은행|신한은행|우리은행»", "계좌번호": "«account»",
 "예금주": "«name»", "금액": «id»}""",
    "bank-group": """회비 «amount»원 입금 계좌 안내
«bank_account» (총무 «name»)
문의 «phone»""",
    "bank-salary": """급여 이체 명단
«name» «bank_account!» «amount»
«name» «bank_account!» «amount»
«name» «bank_account!» «amount»""",
    "card-cancel": "카드번호 «card»로 «kodate» 결제한 «amount»원 취소해 주세요. 승인번호 «id», 제 번호는 "
    "«phone»입니다.",
    "card-alone": "고객이 채팅창에 «card!» 이렇게 적었는데 저장하면 안 되죠? 유효기간 «n»/«n»",
    "card-lines": """결제 수단
1) «card!»
2) «card!»
본인 명의 휴대폰 «phone»""",
    "card-sms": "[Web발신] «=신한|삼성|현대|국민»카드 «card» 승인 «amount»원 일시불 «clock» «company» 누적 «amount»원",
    "shipping-label": """보내는 분: «company» «phone!»
받는 분: «name» «phone!»
운송장 «tracking»
배송메모: 부재시 경비실, 도착 전 «phone» 꼭 연락""",
    "shipping-change": "수령인을 «name»(«phone!»)에서 «name»(«phone!»)으로 바꿔주세요. 송장번호는 «tracking»입니다.",
    "shipping-json": """{
  "orderId": "«order»",
  "receiver": {"name": "«name»", "tel": "«phone»", "email": "«email»"},
  "zip": "0«=6236|4524|3187»",
  "createdAt": "«timestamp»"
}""",
    "sql-insert": """INSERT INTO members (id, name, rrn, mobile, email, created_at) VALUES
  («id», '«name»', '«rrn!»', '«phone!»', '«email»', '«timestamp»'),
  («id», '«name»', '«rrn!»', '«phone!»', '«email»', '«timestamp»');
이 쿼리에서 중복 키 오류가 납니다. 원인이 뭘까요?""",
    "sql-where": "SELECT * FROM tb_cust WHERE mbtl_no = '«phone!»' OR eml = '«email»'; 인덱스를 타게 고쳐줘",
    "log-user": """«timestamp» INFO  [http-nio-8080-exec-«n»] c.h.MemberService - 회원가입 email=«email» phone=«phone»
«timestamp» ERROR [http-nio-8080-exec-«n»] c.h.SmsClient - 발송 실패 to=«phone!» code=«n» elapsed=«ms»ms""",
    "dev-token": """깃허브 액션이 실패합니다. 토큰 문제일까요?
git clone https://«github»@github.com/hanbit/orders.git
fatal: unable to access (exit «n»), 커밋 «sha»""",
    "dev-openai": "API 키를 «openai»로 바꿨는데 401이 나요. 모델은 gpt-4o-2024-08-06, openai==«version»",
    "dev-aws": """application.yml 검토 부탁드립니다.
cloud:
  aws:
    credentials:
      access-key: «aws»
      aws_secret_access_key: «aws_secret»
    region: ap-northeast-2""",
    "dev-jwt": """Postman에서 아래처럼 보내면 403이 나와요.
Authorization: Bearer «jwt»
X-Request-Id: «uuid»""",
    "dev-pem": """서버 접속이 안 됩니다. 키 파일이 이상한가요?
«pem»
접속 주소는 «ip» 입니다.""",
    "insurance-claim": """보험금 청구: 피보험자 «name» «rrn!», 수령 계좌 «bank_account», 휴대폰 «phone»,
진단일 «kodate», 청구액 «amount»원, 증권번호 «id»-«n»""",
    "loan-apply": """대출 신청서 내용을 표로 정리해줘
이름 «name», 주민등록번호 «rrn», 운전면허 «licence», 직장전화 «phone», 이메일 «email»
희망금액 «amount»원, 자동이체 계좌 «bank_account»""",
    "school-list": "비상연락망: 1번 «name» «phone!», 2번 «name» «phone!», 3번 «name» «phone!» (담임 «email»)",
    "global-supplier": "해외 공급사 담당자 «enname», 전화 «intl», 메일 «email», 계좌 IBAN «iban»로 EUR «amount» 송금 "
    "예정",
    "global-call": "시차 때문에 «intl»로는 «clock» 이후에만 통화돼요. 한국 대표번호는 «phone»이에요.",
    "mail-newline": """담당자 연락처
:«phone»
이메일
:«email»
(업무시간 09:00~18:00)""",
    "email-particles": "자료는 «email»으로, 세금계산서는 «email»에, 참조는 «email»까지 넣어주세요.",
    "email-brackets": "문의처: «name»(«email»), 긴급 시 [«phone!»]; 참조 <«email»>",
    "apartment": """관리비 자동이체 신청합니다. «n»동 «id»호 «name», 이체 계좌 «bank_account», 휴대전화 «phone!»""",
    "reservation": "예약자 «name» / «phone!» / «kodate» «clock» / «n»명 / 예약금 «amount»원 입금 계좌 «bank_account»",
    "foreign-list": """외국인 직원 현황
1. «enname» / 외국인등록번호: «foreigner» / 비자 E-9 / 입사 «date»
2. «enname» / 외국인등록번호: «foreigner» / 비자 H-2 / 입사 «date»
3. «enname» / 외국인등록번호: «foreigner» / 비자 F-4 / 입사 «date»""",
    "foreign-table": """이름;등록번호;전화
«enname»;«foreigner!»;«phone!»
«enname»;«foreigner!»;«phone!»""",
    "foreign-bank": "계좌 개설 서류: 외국인등록증 번호 «foreigner»(«enname»), 여권번호 «passport», 자동이체 "
    "«bank_account»",
    "foreign-alone": "«enname»(«foreigner!») 체류자격 변경, 처리번호 «order», «kodate» 접수",
    "licence-fleet": """법인차량 운전자 등록
- «name» 운전면허번호 «licence» (1종 보통)
- «name» 운전면허번호 «licence» (2종 보통)
- «name» 면허번호: «licence» 갱신일 «date»""",
    "licence-csv": """name,license_no,issued
«name»,«licence!»,«date»
«name»,«licence!»,«date»""",
    "us-branch": "미국 법인 직원 SSN은 «ssn»이고 연락처는 «intl», 급여는 «amount»달러입니다. W-2 양식 작성법 알려줘.",
    "visa-letter": """초청장 초안을 써줘. 초청인 «company»(사업자등록번호 «business», 전화 «phone»),
피초청인 «enname», 여권번호 «passport», 전화 «intl», 입국 예정일 «kodate».""",
}

NEGATIVE: Final[dict[str, str]] = {
    "order-status": "주문번호 «order» 배송 상태 알려주세요. 송장 «tracking», 결제금액 «amount»원, «kodate» 주문입니다.",
    "order-paid": "«kodate» 입금 확인했습니다. 주문번호는 «order»이고 입금액은 «amount»원, 입금일시 «timestamp»입니다.",
    "tracking-list": """운송장번호 목록
«tracking»
«tracking»
«tracking»
도착 예정 «date»""",
    "service-number": "고객센터 «service» 또는 «service»로 전화하시면 «clock»까지 상담 가능합니다. 긴급 신고는 "
    "119입니다.",
    "phone-menu": """ARS 안내 문구를 다듬어 주세요.
한국어는 1번, 영어는 2번, 배송 조회는 3번, 상담원 연결은 0번을 누르고 우물 정자를 눌러 주세요.""",
    "about-privacy": "주민등록번호와 여권번호, 계좌번호, 운전면허번호는 왜 수집하면 안 되나요? "
    "개인정보보호법 제24조의2를 설명해줘.",
    "about-format": "사업자등록번호는 세 자리, 두 자리, 다섯 자리로 나뉘고 마지막이 검증번호라던데 계산식을 알려줘.",
    "starred": "고객 정보: «name», 주민번호 «starredrrn», 카드 «starredcard», 휴대폰 «starredphone» (마스킹 완료)",
    "placeholders": "«placeholder» 님께 «placeholder»로 안내 메일을 보내고 «placeholder»로 전화해 달라고 정중하게 "
    "써줘.",
    "bad-rrn": "테스트 데이터 «badrrn», «badrrn» 는 날짜가 잘못되어 검증에서 걸러져야 합니다.",
    "bad-business": "품번 «badbusiness», «badbusiness» 재고 부족. 입고 예정 «date», 수량 «n»개",
    "bad-card": "모의 번호 «badcard»는 검증을 통과하지 못합니다. 왜 그런지 설명해줘.",
    "articles": """부품 목록
- 품번 «article» 수량 «n»
- 품번 «article» 수량 «n»
- 품번 «article» 수량 «n»
단가 «amount»원""",
    "estimate": """견적서 «order»
품목            수량   단가      금액
USB-C 케이블    «n»    «amount»  «amount»
27인치 모니터   «n»    «amount»  «amount»
합계                             «amount»원 (부가세 별도)""",
    "receipt": """영수증
POS-«n» «timestamp»
바코드 «barcode»
아메리카노 «n»잔 «amount»
받을금액 «amount» 거스름돈 «amount»""",
    "books": "ISBN «isbn»와 ISBN «isbn» 중 어느 쪽이 최신판인가요? 정가는 «amount»원입니다.",
    "schedule": """회의 일정
«date» «clock»~«clock» 주간회의 (회의실 «n»층)
«date» «clock»~«clock» 릴리스 «version» 점검
다음 회차는 «kodate»""",
    "release": "«version»에서 «version»으로 올린 뒤 «kodate»부터 메모리가 늘었습니다. 커밋 «sha» 이후로 보입니다.",
    "log-batch": """«timestamp» INFO  [main] c.h.SettleJob - jobId=«long» step=«n» read=«id» elapsed=«ms»ms
«timestamp» WARN  [pool-«n»] c.h.batch.SettleJob - retry key=«md5» epoch=«epochms»
«timestamp» ERROR [pool-«n»] c.h.batch.SettleJob - ORA-0«=1555|4031|0060» 트랜잭션 «uuid» 실패""",
    "log-nginx": """«ip» - - [«timestamp»] "GET /v1/orders/«long»?ts=«epochms» HTTP/1.1" 200 «id» "-" rt=«ms»
«ip» - - [«timestamp»] "POST /v1/orders HTTP/1.1" 502 «id» "-" rt=«ms»
이 로그에서 502 원인을 추정해줘""",
    "spring-code": """@RestController
@RequestMapping("/api/v«n»")
public class OrderController {
    private static final long serialVersionUID = «long»L;
    @GetMapping("/orders/{id}")
    public Order find(@PathVariable Long id) { return service.find(id); } // 이슈 #«id»
}""",
    "python-code": """@app.route("/health")
@limiter.limit("«n»/minute")
def health():
    return {"version": "«version»", "build": "«sha»", "ts": «epoch»}
이 데코레이터 순서가 맞나요?""",
    "sql": """SELECT order_no, amt FROM tb_order
 WHERE order_no IN ('«order»', '«order»')
   AND reg_dt BETWEEN '«date»' AND '«date»' AND seq > «long»;""",
    "json": """{"orderNo": "«order»", "invoice": "«tracking»", "price": «id»,
 "createdAt": «epochms», "hash": "«sha256»"}
이 JSON 스키마를 만들어줘""",
    "csv": """일자,상품코드,바코드,수량,금액
«date»,«article»,«barcode»,«n»,«id»
«date»,«article»,«barcode»,«n»,«id»""",
    "map": "좌표 «coordinates» 에서 «coordinates» 까지 직선거리를 계산해줘. 고도는 «n»m",
    "network": "공유기 MAC «mac», 게이트웨이 «ip», DNS «ip» 설정에서 VLAN «n» 통신이 안 됩니다. 펌웨어 «version»",
    "key-howto": "OpenAI 키는 «nokey» 형태이고 깃허브 토큰은 «nokey» 로 시작하나요? 환경변수에 어떻게 넣죠?",
    "law": "대법원 «=2019다|2021도|2023두»«id» 판결과 헌재 «=2018헌바|2020헌마»«n» 결정을 비교해줘. 선고일 «kodate».",
    "stock": "삼성전자(005930) «amount»원, 카카오(035720) «amount»원, 거래량 «amount»주, 환율 1,3«n».50원",
    "notice": "공고 제2025-«id»호, 접수기간 «date» ~ «date», 예산 «amount»천원, 문서번호 총무과-«id»",
    "address": "서울특별시 강남구 테헤란로 «n»길 «n», «n»층 «id»호 (우) 0«=6236|4524|3187»",
    "exam": "수험번호 «id»-«n», 시험일 «kodate», 점수 «n».«n», 백분위 «n»%, 등급 «=1|2|3»",
    "meter": "검침값 «long», 전월 «long», 사용량 «id» kWh, 요금 «amount»원, 고객번호는 문의하세요",
    "hex": """메모리 덤프 분석 부탁드립니다.
«hexdump»
주소 «hex», 크기 «hex»""",
    "image": "이 이미지 깨졌나요? data:image/png;base64,«blob»",
    "uuid": "세션 «uuid» 와 «uuid» 가 동시에 살아 있습니다. 만료 «epoch», 토큰 해시 «sha256»",
    "npm": "react@18.«n».«n», @types/node@20.«n».1, lodash@4.17.21 버전 충돌 해결법과 eslint@^9.«n» 설정 문제",
    "korean-only": "«=회의록을 세 줄로 요약해줘|보고서 문체를 더 공손하게 바꿔줘|이 문단을 영어로 번역해줘»: "
    "이번 분기 매출은 작년보다 «n»% 늘었고, 신규 고객은 «amount»명입니다. 다만 배송 지연 민원이 «n»건 접수되어 "
    "«=물류|품질|고객지원»팀이 대응하고 있습니다.",
    "sns": "@hanbit_official 계정 이벤트 #«id» 당첨자 발표는 «kodate» «clock», 참여 «amount»명",
    "lotto": "제«id»회 당첨번호 3 11 15 29 35 «n», 1등 «amount»원",
    "ticket": "JIRA-«id» 이슈를 «version»에 반영했고 QA-«id»는 보류, 빌드 «date».«n»",
    "car-parts": "엔진오일 5W-30, 타이어 225/45R17, 차대번호 KMH«=EC41|DC81»BAA«id», 주행거리 «amount»km",
}
