"""The reference workspace's 50 pictures and captions, drawn from fixed subjects and seeds.

The subjects were written down before any model saw them; each sample query has at least
one right picture and near ones that are wrong (another cat, another dog, another car).
``python -m training.demo_pictures`` writes them to ``clip_retrieval/data``.
"""

from __future__ import annotations

import argparse
import csv
import random
from pathlib import Path

from training.backgrounds import PLACES, Background
from training.scenes import Group, compose, render, thing_named

SIZE, QUALITY = 640, 88

# caption | things as "name colour ×count" | place | relation of the first to the second
SUBJECTS = """
一只灰猫蹲在树干上 | 猫 gray + 树干 | forest | on
一只棕色的狗站在草地上 | 狗 brown | grass |
一只哈士奇站在雪地里 | 哈士奇 | snow |
一只小猪在雪地里玩 | 小猪 | snow |
一只金毛犬站在黄色背景前 | 金毛 | plain yellow |
一只黑猫趴在沙发上 | 猫 black + 沙发 | room | on
一只大熊猫坐在森林里 | 熊猫 | forest |
一辆红色的汽车停在公路上 | 汽车 red | road |
一只蝴蝶停在花上 | 蝴蝶 + 花 | grass | on
两只小猪在草地上 | 小猪 ×2 | grass |
一只橘猫在房间里 | 猫 orange | room |
一只白猫坐在木桌上 | 猫 white | table |
一只贵宾犬在沙滩上 | 贵宾犬 | beach |
一只工作犬站在马路上 | 工作犬 | road |
一只灰色的兔子在草坪上 | 兔子 gray | grass |
房间里有一只灰色的小猫 | 猫 gray | room |
一只金毛在草地上奔跑 | 金毛 | grass |
雪地里的两只哈士奇 | 哈士奇 ×2 | snow |
一只北极熊站在雪地上 | 北极熊 | snow |
森林里的一只棕熊 | 熊 | forest |
一只老虎趴在草地上 | 老虎 | grass |
沙漠里的一头狮子 | 狮子 | desert |
一头大象在草地上散步 | 大象 | grass |
一只长颈鹿站在群山前 | 长颈鹿 | mountains |
两匹斑马在草地上 | 斑马 ×2 | grass |
一头骆驼走在沙漠里 | 骆驼 | desert |
三只企鹅站在雪地里 | 企鹅 ×3 | snow |
星空下的一只猫头鹰 | 猫头鹰 | night |
一只鹦鹉在树林里 | 鹦鹉 | forest |
海底的一条热带鱼 | 热带鱼 | underwater |
一头鲸鱼在大海里 | 鲸鱼 | sea |
两只海豚在海里跳跃 | 海豚 ×2 | sea |
一只乌龟在沙滩上晒太阳 | 乌龟 | beach |
一只青蛙蹲在荷花上 | 青蛙 + 莲花 | rain | on
一只蜜蜂停在向日葵上 | 蜜蜂 + 向日葵 | grass | on
蓝天下的一只蝴蝶 | 蝴蝶 | sky |
草地上的三朵郁金香 | 郁金香 ×3 | grass |
一辆蓝色的汽车停在公路上 | 汽车 blue | road |
一辆红色的公交车在城市里 | 公交车 red | city |
海边的一辆自行车 | 自行车 | beach |
一架飞机在蓝天上飞 | 飞机 | sky |
夕阳下的一艘帆船 | 帆船 | sunset |
桌子上的一个红苹果 | 苹果 red | table |
木桌上有三根香蕉 | 香蕉 ×3 | table |
桌上放着一个生日蛋糕 | 生日蛋糕 | table |
夜里的两个红灯笼 | 红灯笼 ×2 | night |
雪地里的一个雪人 | 雪人 | snow |
粉色背景前的一只小猪 | 小猪 | plain pink |
森林里的一头野猪 | 野猪 | forest |
左边是一只母鸡，右边是一只小鸡 | 母鸡 + 小鸡 | grass | left
"""

# The sample queries and every picture that answers them.
QUERIES = {
    "灰猫": (1, 16),
    "金毛": (5, 17),
    "哈士奇": (3, 18),
    "小猪": (4, 10, 48),
    "黑猫": (6,),
    "熊猫": (7,),
    "a red car": (8,),
    "butterfly on a flower": (9,),
    "雪地": (3, 4, 18, 19, 27, 47),
    "a pig in the snow": (4,),
}


def _group(text: str, rng: random.Random) -> Group:
    name, *rest = text.split()
    count = next((int(word[1:]) for word in rest if word.startswith("×")), 1)
    colour = next((word for word in rest if not word.startswith("×")), None)
    thing = thing_named(name)
    return Group(thing, rng.choice(thing.glyphs), colour, count)


def write(folder: Path) -> None:
    """Write images/NNN.jpg, captions.csv and queries.csv under ``folder``."""
    (folder / "images").mkdir(parents=True, exist_ok=True)
    rows = []
    for number, line in enumerate(SUBJECTS.strip().splitlines(), 1):
        text, things, place, relation = (cell.strip() for cell in line.split("|"))
        rng = random.Random(f"demo:{number}")
        groups = [_group(item, rng) for item in things.split("+")]
        kind, _, colour = place.partition(" ")
        assert kind in PLACES or colour, place
        background = Background(kind, colour or None, rng.getrandbits(32))
        scene = compose(groups, background, relation or None, rng)
        path = f"images/{number:03d}.jpg"
        render(scene, SIZE).save(folder / path, quality=QUALITY, optimize=True)
        rows.append((path, text))
    with (folder / "captions.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([("image_path", "caption"), *rows])
    with (folder / "queries.csv").open("w", encoding="utf-8", newline="") as file:
        right = [(q, " ".join(rows[n - 1][0] for n in answers)) for q, answers in QUERIES.items()]
        csv.writer(file, lineterminator="\n").writerows([("query", "image_paths"), *right])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("clip_retrieval/data"))
    write(parser.parse_args().out)


if __name__ == "__main__":
    main()
