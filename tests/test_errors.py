from artsel_ray.errors import first_line, one_line


def test_first_line_is_the_message_or_the_type() -> None:
    assert first_line(ValueError("\nwrong\nand more")) == "wrong"
    assert first_line(ValueError("  ")) == "ValueError"


def test_one_line_is_bounded() -> None:
    assert one_line(ValueError("wrong\n\tand   more")) == "wrong and more"
    assert len(one_line(ValueError("x" * 1000))) == 400
