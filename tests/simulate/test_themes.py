from artsel_ray.simulate.themes import THEMES


def test_every_theme_has_words_and_genres() -> None:
    assert len({theme.label for theme in THEMES}) == 12
    for theme in THEMES:
        assert min(map(len, (theme.subjects, theme.actions, theme.settings, theme.objects, theme.lights))) >= 4
        assert len(theme.moods) >= 4
        assert all(0 < weight <= 1 for weight in theme.genres.values())


def test_words_and_genres_keep_the_order_of_the_file() -> None:
    # Their order decides what a seed draws.
    assert [theme.label for theme in THEMES[:3]] == ["tenderness", "peril", "wonder"]
    assert list(THEMES[1].genres.items()) == [("Thriller", 1.0), ("Crime", 0.6), ("Horror", 0.4), ("Action", 0.3)]
    assert THEMES[1].subjects[:2] == ("a hunted man", "a woman with a gun")
