"""What the pages show and read: stories, advice, the chart, and the fields of forms."""
