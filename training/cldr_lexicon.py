"""Write the last-resort lexicon: what CLDR calls emoji in Chinese and English.

The names come from Debian's ``unicode-cldr-core``, the groups from ``unicode-data``; the file
is committed, so that neither is needed to use it. Run as ``python -m training.cldr_lexicon``.
"""

from __future__ import annotations

import re
from pathlib import Path

from training.things import CLDR, GROUPS, LEFT_OUT, bare, cldr_names, read_emoji

LEXICON = Path(__file__).parents[1] / "src/soutu/query/data/lexicon/cldr.tsv"
DTD = CLDR.parent / "dtd" / "ldml.dtd"
MAX_CHARACTERS = 8  # beyond that a name is a description that nobody types

# Kinds by subgroup or its first part; what remains in the groups of things is a thing. Faces,
# hands, signs and flags are left out: CLDR names what they mean (嘿嘿), not what is seen.
KINDS = {
    "body": "body",
    "person": "person",
    "family": "person",
    "person-gesture": "action",
    "person-activity": "action",
    "person-sport": "action",
    "person-resting": "action",
    "animal": "animal",
    "plant": "plant",
    "food": "food",
    "drink": "food",
    "place": "place",
    "transport": "vehicle",
    "sky & weather": "weather",
    "clothing": "clothing",
}

# Members of a subgroup that are of another kind than the rest.
EXCEPTIONS = {
    "body": "羽毛 爪印 猪鼻子",
    "thing": (
        "奶瓶 茶壶 平底杯 世界地图 日本地图 指南针 砖 岩石 木头 蜘蛛网 伞 温度计 空巢 帐篷 喷泉 "
        "旋转木马 游乐场滑梯 念珠 唇膏 宝石 锚 救生圈 铁轨 石油桶 油泵 车轮 警车灯 降落伞 停止标志 "
        "卫星 四轮滑冰鞋 钱包 戒指 购物袋 脚印"
    ),
    "place": "车站 公交车站 高速公路 山区铁路",
    "person": "兔先生 兔女郎 击剑选手 摔跤选手 行人 站立者 下跪者 跑步者",
    "action": "亲吻 母乳喂养 露营 施工 碰杯",
    "event": "婚礼 赏月 表演艺术",
}
KIND_OF = {name: kind for kind, names in EXCEPTIONS.items() for name in names.split()}

# Names that say something else in Chinese than in English, or in English more than is meant.
_FALSE = """
滑冰 滑雪 滑雪板 高压 闪亮 煎蛋 葡萄酒 蜥蜴类 毛毛虫 松鼠 排骨 面条 路障 理发店 梅花 链接 提示丝带
有雾 索道 精灵 仙人 仙女 妖怪 男妖怪 女妖怪 圣诞人 拐杖 水果蛋糕 烟花 开花 松树 收邮件 游戏手柄 干杯
乌贼 开香槟 活塞 家禽的腿 热茶 阴 多云 下雨 下雪 打雷 雷阵雨 台风 音乐键盘 美洲鸵 蜂蜜 救生衣 雨伞
阳伞 雪人 雪与雪人 文件 天妇罗 钢笔尖 铁镐 马黛茶 兵 耗子 座位 前台 前台男 前台女 说话 人像 双人像
绿色书本 蓝色书本 橙色书本 程序员 男程序员 女程序员 情侣 肌肉 倾倒液体 影片帧 结 稻子 成人 人鱼 药草
长鼓 OK手势 OK手势男 OK手势女 航班起飞 航班降落 小号 公牛 空轨
"""
FALSE = frozenset(_FALSE.split())


def version() -> str:
    """Return the CLDR version of the installed package."""
    match = re.search(r'cldrVersion CDATA #FIXED "([\d.]+)"', DTD.read_text(encoding="utf-8"))
    return match.group(1) if match else "of unknown version"


def rows() -> list[str]:
    """One line ``word, kind, english, synonyms, sense`` for every name worth a search."""
    zh_names, en_names = cldr_names("zh"), cldr_names("en")
    lines: dict[str, str] = {}
    for glyph, group, subgroup in read_emoji():
        zh, en = zh_names.get(bare(glyph), ""), en_names.get(bare(glyph), "")
        kind = _kind(zh, group, subgroup)
        if kind and _is_word(zh) and ":" not in en and not LEFT_OUT.search(en):
            lines.setdefault(zh, "\t".join([zh, kind, en.replace("’", "'"), "", ""]))
    return list(lines.values())


def lexicon() -> str:
    """Return the whole file."""
    head = (
        "# Names of emoji, for words that no other file of the lexicon has.",
        f"# Source: Unicode CLDR {version()}, annotations zh.xml and en.xml (made by",
        "# training/cldr_lexicon.py). Copyright © 1991-2022 Unicode, Inc.",
        "# SPDX-License-Identifier: Unicode-DFS-2016 (text: LICENSE-unicode.txt beside this file)",
    )
    return "\n".join([*head, *rows()]) + "\n"


def _kind(name: str, group: str, subgroup: str) -> str | None:
    near = KINDS.get(subgroup) or KINDS.get(subgroup.split("-")[0])
    if group in GROUPS:
        return KIND_OF.get(name) or near or "thing"
    return (KIND_OF.get(name) or near) if group == "People & Body" else None


def _is_word(name: str) -> bool:
    """Whether people type the name: 收起的伞 is a description."""
    chinese = re.fullmatch(r"[A-Za-z0-9]*[\u4e00-\u9fff]+", name)
    return bool(chinese) and len(name) <= MAX_CHARACTERS and "的" not in name and name not in FALSE


if __name__ == "__main__":
    LEXICON.write_text(lexicon(), encoding="utf-8")
    print(f"{len(rows())} names in {LEXICON.name}")
