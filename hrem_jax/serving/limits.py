"""What one request may cost."""

MAX_TEXT = 1000  # characters: longer than any caption; what the encoder does not take in it cuts off by itself
MAX_RESULTS = 100
MAX_PAGE = 200  # pictures of the gallery in one answer
MAX_ID = 1024  # characters
MAX_START = 2**53 - 1  # the integers that JavaScript knows

MAX_UPLOAD = 20 * 2**20  # bytes
MAX_UPLOAD_PIXELS = 50_000_000  # a small file can hold a lot of them; unpacked they take up to 32 bytes each
MAX_UPLOAD_SECONDS = 60.0  # until it is here
UPLOAD_GRACE = 5.0  # seconds after which it must have come at
MIN_UPLOAD_SPEED = 20_000  # bytes a second on average: a slow telephone has more
ARRIVING = 32  # uploads on their way at once
ARRIVING_OF_ONE = 4  # of these from one address
MAX_HEADER_SECONDS = 10.0  # until the head of a request is here

MAX_SHOWN = 32 * 2**20  # bytes of a picture file of the gallery

AT_ONCE = 2  # searches by text or id that compute; more would share the same cores
WAITING = 16  # searches beside them that wait
UPLOADS_AT_ONCE = 1  # pictures that are decoded: one may take a gigabyte
UPLOADS_WAITING = 8  # uploads beside it that are here and wait
FILES_AT_ONCE = 4  # picture files in memory
