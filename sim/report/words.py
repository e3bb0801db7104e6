"""What reports say, in English and Chinese: every sentence, heading and label of an answer and of the page.

A sentence is a template. Names of designs, of sites and of protocols stay as they are; numbers are written alike in
both languages, for Chinese uses the same digits and separators.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

Language = Literal["en", "zh"]

WORDS: dict[str, tuple[str, str]] = {
    # verdicts
    "keeps up": ("keeps up", "跟得上"),
    "falls behind": ("falls behind", "跟不上"),
    "halts": ("halts", "停摆"),
    "slows": ("slows", "变慢"),
    "goes on": ("goes on", "照常"),
    "breaks": ("breaks", "安全性被破坏"),
    "halts for good": ("halts for good", "不再恢复"),
    "cut short": ("cut short", "提前中止"),
    "wrong": ("wrong", "数据有误"),
    "failed": ("failed", "失败"),
    # what became of runs that ended badly
    "is broken": (
        "{names} breaks its promises: a check of safety failed.", "{names}违背了安全承诺：一项安全检查未通过。",
    ),
    "is stuck": (
        "{names} halts for good: nothing is decided although its voters are back.",
        "{names}不再恢复：投票节点已恢复，仍不出块。",
    ),
    "is cut": ("{names} was cut short by a limit; it shows nothing.", "{names}因触及上限提前中止，不能说明任何问题。"),
    "is bad": ("{names} ended badly ({status}).", "{names}异常结束（{status}）。"),
    # under faults
    "halt": ("{lost} halts {names}{after}.", "{lost}，{names}停摆{after}。"),
    "after": (
        "; once it is over, {they} again after {times}", "；故障结束后，分别经{times}恢复出块",
    ),
    "after, one": ("; once it is over, it decides again after {times}", "；故障结束后，经{times}恢复出块"),
    "others": ("{names} go on, with pauses of at most {times}.", "{names}照常出块，最长停顿分别为{times}。"),
    "others, one": ("{names} goes on, with pauses of at most {times}.", "{names}照常出块，最长停顿{times}。"),
    "none": (
        "{lost} does not halt {names}: they go on, with pauses of at most {times}.",
        "{lost}，{names}都不停摆，最长停顿分别为{times}。",
    ),
    "none, one": (
        "{lost} does not halt {names}: it goes on, with pauses of at most {times}.",
        "{lost}，{names}不停摆，最长停顿{times}。",
    ),
    "slow": ("{names} slow: p99 above {times} times calm.", "{names}变慢：p99 高于无故障时的 {times} 倍。"),
    "slow, one": ("{names} slows: p99 above {times} times calm.", "{names}变慢：p99 高于无故障时的 {times} 倍。"),
    # without faults
    "behind": (
        "{names} falls behind: {count} requests wait at the end.",
        "{names}跟不上：结束时仍有 {count} 个请求在等待。",
    ),
    "keep": (
        "Without faults {names} keep up{rate}; p99 {times}.",
        "无故障时，{names}跟得上{rate}；p99 分别为 {times}。",
    ),
    "keep, one": (
        "Without faults {names} keeps up{rate}; p99 {times}.",
        "无故障时，{names}跟得上{rate}；p99 为 {times}。",
    ),
    "rate": (" with {rate} tx/s", "每秒 {rate} 笔的负载"),
    # faults
    "lose_domain": ("Losing domain {domain}", "失去 {domain} 区"),
    "cut_cable": ("Cutting the cable {between}", "{between} 光缆中断"),
    "cut_link": ("Cutting the link {between}", "{between} 链路中断"),
    "degrade_link": ("Degrading the link {between}", "{between} 链路劣化"),
    "flap_link": ("Flapping of the link {between}", "{between} 链路抖动"),
    "crash": ("Losing {nodes}", "失去{nodes}"),
    "lose_power": ("The power cut", "停电"),
    "storm": ("The storm", "台风"),
    "partition": ("The partition", "网络分区"),
    "slow_node": ("Slowness of {nodes}", "{nodes}变慢"),
    "skew_clock": ("The wrong clock", "时钟偏差"),
    "client_burst": ("The burst of requests", "请求突增"),
    "invalid_flood": ("The flood", "无效请求泛滥"),
    "faults": ("The {count} faults", "这 {count} 个故障"),
    "no fault": ("What was injected", "注入的故障"),
    "node": ("node {nodes}", "节点 {nodes}"),
    "nodes": ("nodes {nodes}", "节点 {nodes}"),
    "all nodes": ("all nodes", "所有节点"),
    "for": (" for {time}", "持续 {time}"),
    "arithmetic": (
        "By the arithmetic of quorums, not run: losing {element} alone halts {names}.",
        "按法定人数推算（未运行）：仅失去 {element}，{names}即停摆。",
    ),
    "no element": (
        "By the arithmetic of quorums, no single domain halts {names}.",
        "按法定人数推算，失去任何单个区都不会使{names}停摆。",
    ),
    "domain": ("domain {name}", "{name} 区"),
    # what numbers rest on; the first of each pair stands in `sim.report.tables` too
    "rates and sizes of the transaction classes with tag A": (
        "rates and sizes of the transaction classes with tag A", "标签为 A 的交易类别的速率和大小",
    ),
    "round trips are estimated from distance; no measured ones were found": (
        "round trips are estimated from distance; no measured ones were found", "往返时延由距离估算，未找到实测值",
    ),
    "when faults come, how long they last, and that all their nodes fail together": (
        "when faults come, how long they last, and that all their nodes fail together",
        "故障的发生时间、持续时间，以及其所有节点同时失效",
    ),
    "assumption": ("(A) {reason}", "（A）{reason}"),
    "played short": ("{names}: {text}.", "{names}：{text}。"),
    "vendors": (
        "Vendors claim 20,000 to 240,000 tx/s, one to three orders of magnitude above documented demand (about 19 tx/s "
        "on average, 580 at peaks). Designs differ in fault tolerance, finality, data residency and bursts, not in "
        "headline TPS.",
        "厂商宣称每秒 20,000 至 240,000 笔，比有据可查的需求（平均约每秒 19 笔，峰值 580 笔）高一至三个数量级。"
        "各设计的差别在于容错、最终性、数据驻留和突发负载，而不在于宣称的 TPS。",
    ),
    "unanswered": ("{name} ({share} unanswered)", "{name}（{share} 未应答）"),
    "peak": ("peak {rate} tx/s", "峰值 {rate} 笔/秒"),
    # the page
    "title": ("Report: {names}", "报告：{names}"),
    "answer": ("Answer", "结论"),
    "comparison": ("Comparison", "对比"),
    "place": ("Where voters stand", "投票节点分布"),
    "latency": ("How long clients wait", "客户端等待时间"),
    "time line": ("What was committed, over time", "提交量随时间变化"),
    "losses": ("What would halt it", "哪些损失会使其停摆"),
    "uses": ("By use", "按用途"),
    "validated": ("What was held against real systems", "与真实系统的对比验证"),
    "compared with": ("measured system", "实测系统"),
    "means": ("means compared", "对比的均值数"),
    "errors": ("error of predictions", "预测误差"),
    "half within": ("half within", "一半误差不超过"),
    "not measured": ("none", "无"),
    "error span": ("{low} to {high} %", "{low} 至 {high} %"),
    "validation note": (
        "Real systems ran in 2026 on one machine with delays set between their nodes; errors are of mean "
        "latencies, without those that anything was fitted to. A design that names no platform stands beside all "
        "measured systems of its protocol, whose timers differ from its own. Nothing but latency is compared here; for "
        "storms and the island's links there are no measurements.",
        "2026 年，真实系统在一台设定了节点间时延的机器上运行；误差针对平均时延，不含用于拟合的数据。"
        "未指定平台的设计与同一协议的所有实测系统并列，其定时器与自身不同。此处只比较时延；风暴和岛内链路没有实测数据。",
    ),
    "rests": ("What it rests on", "依据与假设"),
    "provenance": ("Where it comes from", "来源与重现"),
    "design": ("design", "设计"),
    "verdict": ("verdict", "判定"),
    "offered": ("offered, tx/s", "负载，笔/秒"),
    "committed": ("committed, tx/s", "提交，笔/秒"),
    "p50": ("p50, ms", "p50，毫秒"),
    "p99": ("p99, ms", "p99，毫秒"),
    "pause": ("longest pause", "最长停顿"),
    "use": ("class", "类别"),
    "requests": ("requests", "请求数"),
    "success": ("success", "成功率"),
    "late": ("missed deadlines", "超时"),
    "lost": ("lost", "失去"),
    "halted": ("halts", "停摆"),
    "stands": ("does not halt", "不停摆"),
    "version": ("version", "版本"),
    "seed": ("seed", "种子"),
    "scenario": ("scenario hash", "场景哈希"),
    "digest": ("digest of the run", "运行摘要"),
    "again": ("This page is made again by", "重新生成本页的命令"),
    "assumed": ("(A) marks what rests on an assumption.", "（A）标记依赖假设的数字。"),
    "one run": (
        "One run of each design, so no number here has an interval of replications.",
        "每个设计只运行一次，因此这些数字没有重复试验的区间。",
    ),
    "replicated": (
        "Numbers are means over {count} replications of each design with 95 % Student intervals; the longest pause is "
        "that of all of them. Verdicts count all replications, sentences and figures show the first.",
        "数字为每个设计 {count} 次重复试验的均值及 95 % Student 区间；最长停顿取所有重复中的最大值。"
        "判定计入所有重复试验，文字与图为第一次。",
    ),
    "few": (
        "These intervals hold if values are normal, which so few replications cannot show.",
        "这些区间以数值服从正态分布为前提，如此少的重复次数无法验证。",
    ),
    "left out": (
        "{names}: what did not end ok ({count} of the replications) is in no mean.",
        "{names}：{count} 次未正常结束的重复不计入均值。",
    ),
    "in so many": ("{word} in {count}", "{count} 次{word}"),
    "differing": ("Replications of {name} differ: {words}.", "{name}的重复试验结果不一：{words}。"),
    "ms axis": ("submit to answer, ms", "提交到应答，毫秒"),
    "share axis": ("share of answered requests", "已应答请求的比例"),
    "tps axis": ("tx/s", "笔/秒"),
    "s axis": ("simulated time, s", "模拟时间，秒"),
    "latency finding": ("{best} answers soonest: half within {p50} ms", "{best}应答最快：一半在 {p50} 毫秒内"),
    "time finding": ("Shaded: faults. {lost}", "阴影为故障。{lost}"),
    "map finding": ("Voters by fault domain{halting}", "各故障区的投票节点{halting}"),
    "map halting": ("; losing {names} halts {design}", "；失去{names}，{design}停摆"),
    "outline": ("Outline: Natural Earth (public domain)", "轮廓：Natural Earth（公有领域）"),
}  # fmt: skip


def say(language: Language, key: str, **values: object) -> str:
    """A template in a language, filled in."""
    return WORDS[key][language == "zh"].format(**values)


def counted(language: Language, key: str, count: int, **values: object) -> str:
    """The form for one, or for several."""
    return say(language, f"{key}, one" if count == 1 else key, **values)


def listed(words: Sequence[str], language: Language = "en") -> str:
    """a, b and c."""
    if language == "zh":
        return "、".join(words)
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
