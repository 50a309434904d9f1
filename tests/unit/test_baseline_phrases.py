from soutu.indexing.baseline import sample_phrases


def test_phrases_are_many_different_and_in_both_languages():
    said = sample_phrases(2400)
    assert len(set(said)) == 2400
    chinese = [phrase for phrase in said if any("一" <= letter <= "鿿" for letter in phrase)]
    assert len(chinese) == 1200


def test_fewer_are_the_first_of_them_and_mixed():
    assert sample_phrases(10) == sample_phrases(640)[:10]
    assert sample_phrases(2)[0] != sample_phrases(2)[1]


def test_one_in_four_of_the_first_is_a_word_alone():
    places = ("里", "上", "中", "下", "海边", "窗前", "夜晚", "山顶", "湖边", "老房子前")
    chinese = [phrase for phrase in sample_phrases(512) if phrase[0] >= "一"]
    words = [p for p in chinese if not any(f"{place}的" in p for place in places)]
    assert len(chinese) == 256
    assert len(words) == 64
    assert len(sample_phrases(10_000)) == len({*sample_phrases(10_000)}) == 2688
