"""Every text of the pages, in Chinese and English. Keys are the same in both; a test keeps them so."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Final

from hub.domain.lifecycle import CHINA

LANGUAGES: Final = ("zh", "en")
TAGS: Final = {"zh": "zh-CN", "en": "en"}

_TEXTS: Final[Mapping[str, tuple[str, str]]] = {
    # pages
    "title": ("号码焕新 · 监管视图", "Number renewal · Regulator’s view"),
    "brand": ("号码焕新", "Number renewal"),
    "subtitle": ("监管视图", "Regulator’s view"),
    "skip": ("跳到正文", "Skip to the figures"),
    "language": ("语言", "Language"),
    "logout": ("退出", "Sign out"),
    "signed_in": ("当前用户", "Signed in as"),
    "live": ("实时更新", "Live"),
    "stale": ("连接中断，数字停留在上次更新", "Connection lost: figures stand as last updated"),
    "ended": ("会话已结束，请用新的链接登录", "The session has ended: open a new link to sign in"),
    "as_of": ("截至", "As of"),
    "log_position": ("日志位置", "log position"),
    "watermark": ("截至 {time}，日志位置 {position}", "As of {time}, log position {position}"),
    "time_zone": ("北京时间", "China time"),
    # login
    "login_title": ("登录监管视图", "Sign in to the regulator’s view"),
    "login_text": (
        "此链接只能使用一次，签发后十分钟内有效。点击按钮即登录，会话保持八小时。",
        "This link works once, within ten minutes of being issued. The button signs you in for eight hours.",
    ),
    "login_button": ("登录", "Sign in"),
    "closed_title": ("请用登录链接打开", "Open this page with a sign-in link"),
    "closed_text": (
        "监管视图只对监管方和运营方开放。请运营方在主机上执行下面的命令，取得一次性登录链接：",
        "This view is for regulators and operators. Ask the operator to run this command on the hub; "
        "it prints a link that works once:",
    ),
    "closed_note": ("链接十分钟内有效，只能使用一次。", "The link is valid for ten minutes and opens once."),
    "link_refused": (
        "此链接无效、已过期或已被使用。请索取新的链接。",
        "This link is not valid, has expired or was used before. Please ask for a new one.",
    ),
    "cross_site": ("请求来自其他网站，已拒绝。", "The request came from another site and was refused."),
    # funnel
    "funnel": ("从发布到放号", "From publication to release"),
    "funnel_note": (
        "一个“号码对”是一个号码与一个应用订阅。送达只表示字节已到达，不代表已处理；处理结果单独统计。",
        "A pair is one number and one app’s subscription. Delivered means the bytes arrived, never that anything was "
        "done; dispositions are counted apart.",
    ),
    "published": ("已发布", "Published"),
    "delivered": ("已送达", "Delivered"),
    "answered": ("已答复", "Answered"),
    "cleared": ("可放号", "Cleared"),
    "unit_numbers": ("号码", "numbers"),
    "unit_pairs": ("号码对", "pairs"),
    "of_owed": ("应达 {total} 对", "of {total} pairs owed"),
    "of_asked": (
        "须答复 {total} 对，其中办结或暂缓 {final} 对",
        "of {total} pairs that ask for one; {final} are final",
    ),
    "of_scheduled": ("计划放号 {total} 个，已放号 {released} 个", "of {total} scheduled; {released} released"),
    "in_chunks": ("共 {chunks} 个分块，应达 {pairs} 对", "in {chunks} chunks, {pairs} pairs owed"),
    # key figures
    "key_figures": ("需要关注", "Needs attention"),
    "key.late": ("逾期应用", "Apps late"),
    "key.overdue": ("逾期分块", "Chunks overdue"),
    "key.open": ("未答复号码对", "Pairs open"),
    "key.parked": ("搁置分块", "Chunks parked"),
    "key.refused": ("拒收行", "Rows refused"),
    "key.renewals": ("主动焕新", "Holder renewals"),
    "key.waivers": ("豁免", "Waivers"),
    # sections
    "late": ("谁在逾期，逾期多久", "Who is late, and by how much"),
    "late_note": (
        "答复期限已过、仍有分块未答复的应用，逾期最久的在前",
        "Apps with chunks not fully answered past their due date, the longest overdue first",
    ),
    "days": ("按日", "By day"),
    "days_note": ("按运营商上报日统计号码对", "Pairs by the day the carrier reported"),
    "mix": ("处理结果构成", "Disposition mix"),
    "mix_note": ("当前有效的答复，更正后的为准", "Answers in force, corrections applied"),
    "classes": ("按应用类别", "By app class"),
    "classes_note": ("每个应用类别须答复的号码对各到哪一步", "How far the pairs that ask for an answer have come"),
    "provinces": ("按省份", "By province"),
    "provinces_note": ("按号段归属地统计已发布号码", "Numbers published, by the home region of their block"),
    "carriers": ("按运营商", "By carrier"),
    "apps": ("按应用", "By app"),
    "clearances": ("最近的放号审核", "Latest clearances"),
    "clearances_note": (
        "运营商询问“可否放号”的判定结果，按号码计",
        "What carriers were told when they asked to release, in numbers",
    ),
    "apps_note": ("每个应用的号码对", "Pairs owed to each app"),
    "events_note": ("每种事件的号码与号码对", "Numbers and pairs of each event"),
    "carriers_note": ("每家运营商发布的号码及其号码对", "What each carrier published, and the pairs owed for it"),
    "events": ("按事件类型", "By event"),
    "waivers": ("豁免清单", "Waivers"),
    "waivers_note": (
        "经签名的决定：放号审核不再等待该订阅方。豁免不等于答复。",
        "Signed acts: clearance does not wait for this subscriber. A waiver is not an answer.",
    ),
    "figures_table": ("数据表", "Table of figures"),
    # columns
    "col_subscriber": ("订阅方", "Subscriber"),
    "col_app": ("应用", "App"),
    "col_class": ("应用类别", "App class"),
    "col_event": ("事件", "Event"),
    "col_open_pairs": ("未答复号码对", "Pairs open"),
    "col_open_chunks": ("未答复分块", "Chunks open"),
    "col_overdue_chunks": ("逾期分块", "Chunks overdue"),
    "col_due": ("最早到期", "Earliest due"),
    "col_late": ("逾期", "Late by"),
    "col_day": ("日期", "Day"),
    "col_numbers": ("号码", "Numbers"),
    "col_owed": ("应达", "Owed"),
    "col_delivered": ("已送达", "Delivered"),
    "col_delivered_share": ("送达率", "Deliv. %"),
    "col_asked": ("须答复", "To answer"),
    "col_answered": ("已答复", "Answered"),
    "col_answered_share": ("答复率", "Answ. %"),
    "col_held": ("其中例外", "Held"),
    "col_published": ("发布号码", "Published"),
    "col_cleared": ("可放号", "Cleared"),
    "col_judged": ("审核时间", "Judged"),
    "col_parked": ("搁置分块", "Parked chunks"),
    "col_share": ("占比", "Share"),
    "col_disposition": ("处理结果", "Disposition"),
    "col_standing": ("计为", "Counts as"),
    "col_pairs": ("号码对", "Pairs"),
    "col_province": ("省份", "Province"),
    "col_carrier": ("运营商", "Carrier"),
    "col_batches": ("批次", "Batches"),
    "col_accepted": ("接收行", "Rows accepted"),
    "col_refused": ("拒收行", "Rows refused"),
    "col_go": ("可放号", "Go"),
    "col_exceptions": ("可放号（有例外）", "Go with exceptions"),
    "col_wait": ("等待", "Wait"),
    "col_person": ("签署人", "Signed by"),
    "col_reason": ("理由", "Reason"),
    "col_batch": ("批次", "Batch"),
    "col_issued": ("签发", "Issued"),
    "col_ends": ("终止", "Ends"),
    "col_state": ("状态", "State"),
    "single_numbers": ("逐号查询", "single numbers"),
    "every_batch": ("全部批次", "every batch"),
    "no_end": ("无期限", "open-ended"),
    "in_force": ("生效中", "in force"),
    "ended_state": ("已终止", "ended"),
    "in_time": ("未逾期", "in time"),
    # empty
    "empty_title": ("尚无数据", "No data yet"),
    "empty_text": (
        "运营商发布第一批号码之后，这里会自动出现数字，无需刷新页面。",
        "Figures appear here by themselves as soon as a carrier publishes its first numbers.",
    ),
    "empty_table": ("暂无记录", "Nothing to list"),
    "empty_late": ("没有逾期", "Nobody is late"),
    "empty_waivers": ("没有豁免", "There are no waivers"),
    # how far a pair has come
    "stage_done": ("已办结", "Done"),
    "stage_held": ("暂缓（有例外）", "Held"),
    "stage_failed": ("失败", "Failed"),
    "stage_pending": ("已答复，未办结", "Answered, not final"),
    "stage_received": ("已送达，未答复", "Delivered, no answer"),
    "stage_missing": ("未送达", "Not delivered"),
    "unknown": ("未知", "unknown"),
    "footer": (
        "本页只有计数，从不显示号码。送达是送达，处理结果是处理结果，二者分别统计。",
        "This page holds counts only, never a number. A receipt is a receipt and a disposition a disposition; "
        "the two are counted apart.",
    ),
    # domain values
    "event.deactivated": ("销户", "Deactivated"),
    "event.restored": ("复机", "Restored"),
    "event.release_scheduled": ("计划放号", "Release scheduled"),
    "event.release_cancelled": ("取消放号", "Release cancelled"),
    "event.released": ("已放号", "Released"),
    "event.reassigned": ("重新入网", "Reassigned"),
    "event.owner_transferred": ("过户", "Owner transferred"),
    "event.renewal_requested": ("主动焕新", "Renewal requested"),
    "class.bank": ("银行", "Banks"),
    "class.securities_fund": ("证券基金", "Securities, funds"),
    "class.payment": ("支付", "Payment"),
    "class.e_commerce": ("电子商务", "E-commerce"),
    "class.social_mail": ("社交邮箱", "Social, mail"),
    "class.lifestyle_travel": ("生活出行", "Lifestyle, travel"),
    "class.cloud_storage": ("云存储", "Cloud storage"),
    "class.telecom_value_added": ("电信增值", "Telecom services"),
    "class.government": ("政务", "Government"),
    "class.games": ("游戏", "Games"),
    "class.lending": ("信贷", "Lending"),
    "class.marking": ("号码标记", "Caller labels"),
    "class.sender": ("催收短信", "Senders"),
    "disposition.unbound": ("已解绑", "Unbound"),
    "disposition.no_account": ("无账户", "No account"),
    "disposition.already_rebound": ("已换绑", "Already rebound"),
    "disposition.rejected_cutoff": ("新机主绑定，不解绑", "New holder’s binding"),
    "disposition.soft_locked": ("已软锁定", "Soft-locked"),
    "disposition.held_funds": ("暂缓：有资金", "Held: funds"),
    "disposition.held_debt": ("暂缓：有欠款", "Held: debt"),
    "disposition.held_legal": ("暂缓：司法冻结", "Held: legal"),
    "disposition.held_dispute": ("暂缓：有争议", "Held: dispute"),
    "disposition.held_memorial": ("暂缓：纪念账户", "Held: memorial"),
    "disposition.needs_holder_action": ("需机主办理", "Needs the holder"),
    "disposition.failed_retryable": ("失败，将重试", "Failed, will retry"),
    "disposition.failed_final": ("失败", "Failed"),
    "standing.pending": ("未办结", "not final"),
    "standing.done": ("办结", "done"),
    "standing.held": ("例外", "exception"),
    "standing.failed": ("不计入", "does not count"),
    "state.active": ("正常", "active"),
    "state.unproven": ("端点未验证", "endpoint unproven"),
    "state.paused": ("已暂停", "paused"),
    "state.suspended": ("已停用", "suspended"),
    "province.北京": ("北京", "Beijing"),
    "province.天津": ("天津", "Tianjin"),
    "province.河北": ("河北", "Hebei"),
    "province.山西": ("山西", "Shanxi"),
    "province.内蒙古": ("内蒙古", "Inner Mongolia"),
    "province.辽宁": ("辽宁", "Liaoning"),
    "province.吉林": ("吉林", "Jilin"),
    "province.黑龙江": ("黑龙江", "Heilongjiang"),
    "province.上海": ("上海", "Shanghai"),
    "province.江苏": ("江苏", "Jiangsu"),
    "province.浙江": ("浙江", "Zhejiang"),
    "province.安徽": ("安徽", "Anhui"),
    "province.福建": ("福建", "Fujian"),
    "province.江西": ("江西", "Jiangxi"),
    "province.山东": ("山东", "Shandong"),
    "province.河南": ("河南", "Henan"),
    "province.湖北": ("湖北", "Hubei"),
    "province.湖南": ("湖南", "Hunan"),
    "province.广东": ("广东", "Guangdong"),
    "province.广西": ("广西", "Guangxi"),
    "province.海南": ("海南", "Hainan"),
    "province.重庆": ("重庆", "Chongqing"),
    "province.四川": ("四川", "Sichuan"),
    "province.贵州": ("贵州", "Guizhou"),
    "province.云南": ("云南", "Yunnan"),
    "province.西藏": ("西藏", "Tibet"),
    "province.陕西": ("陕西", "Shaanxi"),
    "province.甘肃": ("甘肃", "Gansu"),
    "province.青海": ("青海", "Qinghai"),
    "province.宁夏": ("宁夏", "Ningxia"),
    "province.新疆": ("新疆", "Xinjiang"),
    "province.其他": ("其他", "Others"),
    # spans of time
    "span_days": ("{days} 天 {hours} 小时", "{days} d {hours} h"),
    "span_hours": ("{hours} 小时 {minutes} 分", "{hours} h {minutes} min"),
    "span_minutes": ("{minutes} 分钟", "{minutes} min"),
}


class Texts:
    """The texts of one language: ``texts("late")``, ``texts("of_owed", total="12")``."""

    def __init__(self, language: str) -> None:
        self.language = language if language in LANGUAGES else "zh"
        self.tag = TAGS[self.language]
        self._place = LANGUAGES.index(self.language)

    def __call__(self, key: str, **values: str) -> str:
        text = _TEXTS[key][self._place]
        return text.format(**values) if values else text

    def of(self, family: str, value: str) -> str:
        """The name of a domain value; one that this version does not know is shown as it is."""
        found = _TEXTS.get(f"{family}.{value}")
        return found[self._place] if found else value

    def moment(self, moment: datetime | None) -> str:
        return moment.astimezone(CHINA).strftime("%Y-%m-%d %H:%M") if moment else "–"

    def span(self, span: timedelta) -> str:
        minutes = int(span.total_seconds()) // 60
        days, hours = divmod(minutes // 60, 24)
        if days:
            return self("span_days", days=f"{days:,}", hours=str(hours))
        if hours:
            return self("span_hours", hours=str(hours), minutes=str(minutes % 60))
        return self("span_minutes", minutes=str(minutes))


def choose(asked: str | None, remembered: str | None, accept: str) -> str:
    """The language of a page: asked for in the address, else the cookie's, else the browser's, else Chinese."""
    for wanted in (asked, remembered):
        if wanted in LANGUAGES:
            return str(wanted)
    best, found = 0.0, "zh"
    for part in accept.split(",")[:20]:
        tag, _, weight = part.partition(";")
        language = tag.strip().lower().split("-")[0]
        try:
            quality = float(weight.strip().removeprefix("q=")) if weight else 1.0
        except ValueError:
            continue
        if language in LANGUAGES and quality > best:
            best, found = quality, language
    return found


def count(number: int) -> str:
    return f"{number:,}"


def share(part: int, whole: int) -> str:
    """A percentage with one decimal, rounded down: it says 100 % only when nothing is missing, 0 % when nothing is."""
    if whole <= 0:
        return "–"
    tenths = 1000 * part // whole
    if part and not tenths:
        return "<0.1%"
    return "100%" if part >= whole else f"{tenths / 10:.1f}%"
