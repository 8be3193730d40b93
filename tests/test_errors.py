from artsel_ray.errors import first_line, one_line


def test_one_line_joins_and_bounds_a_message() -> None:
    assert one_line(ValueError("a\n  b\tc")) == "a b c"
    assert len(one_line(ValueError("word " * 1000))) == 400


def test_first_line_is_the_messages_or_the_type() -> None:
    assert first_line(ValueError("\na\nb")) == "a"
    assert first_line(ValueError()) == "ValueError"
