"""What one request may cost."""

MAX_TEXT = 1000  # characters: longer than any caption; what the encoder does not take in it cuts off by itself
MAX_RESULTS = 100
MAX_PAGE = 200  # pictures of the gallery in one answer
MAX_ID = 1024  # characters
MAX_START = 2**53 - 1  # the integers that JavaScript knows

MAX_UPLOAD = 20 * 2**20  # bytes
MAX_UPLOAD_PIXELS = 50_000_000  # a small file can hold a lot of them; unpacked they take up to 32 bytes each
MAX_UPLOAD_SECONDS = 60.0  # until it is here

MAX_SHOWN = 32 * 2**20  # bytes of a picture file of the gallery

AT_ONCE = 2  # searches that compute; more would share the same cores
WAITING = 16  # searches beside them that wait, or whose upload is arriving
