from soutu.query.probes import sample_phrases


def test_phrases_are_many_different_and_in_both_languages():
    said = sample_phrases(2400)
    assert len(set(said)) == 2400
    chinese = [phrase for phrase in said if any("一" <= letter <= "鿿" for letter in phrase)]
    assert len(chinese) == 1200


def test_fewer_are_the_first_of_them_and_mixed():
    assert sample_phrases(10) == sample_phrases(640)[:10]
    assert sample_phrases(2)[0] != sample_phrases(2)[1]
