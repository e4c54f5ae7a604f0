"""The page in a real browser: typing, clicking, uploading, going back, light and dark, phone and keyboard."""

import json
import shutil

import pytest
import serving_world

pytest.importorskip('selenium')

from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.wait import WebDriverWait

pytestmark = pytest.mark.slow
CHROMIUM, DRIVER = shutil.which('chromium'), shutil.which('chromedriver')
if not (CHROMIUM and DRIVER):
  pytest.skip('no chromium and chromedriver (Debian: chromium, chromium-driver)', allow_module_level=True)

FLAGS = (
  '--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking '
  '--disable-component-update --disable-sync --window-size=1200,900'
)


class Page:
  """What a person sees and does."""

  def __init__(self, driver: webdriver.Chrome, address: str):
    self.driver, self.address = driver, address

  def open(self, query: str = '') -> None:
    self.driver.get(self.address + query)
    self.settle()

  def settle(self) -> None:
    script = "return document.querySelector('#view').childElementCount && !document.querySelector('[aria-busy]')"
    WebDriverWait(self.driver, 20, 0.05).until(lambda driver: driver.execute_script(script))

  def all(self, selector: str) -> list:
    return self.driver.find_elements(By.CSS_SELECTOR, selector)

  def text(self, selector: str) -> str:
    return self.driver.find_element(By.CSS_SELECTOR, selector).text

  def ask(self, script: str, *arguments):
    return self.driver.execute_script(f'return {script}', *arguments)

  def wait_for(self, script: str) -> None:
    WebDriverWait(self.driver, 20, 0.05).until(lambda driver: driver.execute_script(f'return {script}'), script)

  def type(self, text: str) -> None:
    box = self.driver.find_element(By.ID, 'text')
    box.clear()
    box.send_keys(text + Keys.ENTER)
    self.wait_for(f'document.title.startsWith({json.dumps(text)})' if text else "document.title === 'Picture search'")
    self.settle()

  def shown(self) -> list[str]:
    """The ids of the pictures in the grid."""
    script = "[...document.querySelectorAll('.grid a')].map((link) => new URL(link.href).searchParams.get('id'))"
    return self.ask(script)

  def log(self) -> list[str]:
    return [entry['message'] for entry in self.driver.get_log('browser')]

  def requested(self) -> set[str]:
    """Addresses that were asked for since the last time, whether there was an answer or not."""
    events = [json.loads(entry['message'])['message'] for entry in self.driver.get_log('performance')]
    sent = [event['params']['request'] for event in events if event['method'] == 'Network.requestWillBeSent']
    return {request['url'] for request in sent}


@pytest.fixture(scope='module')
def gallery(tmp_path_factory):
  """More pictures than one page shows."""
  world = serving_world.make(tmp_path_factory.mktemp('browser'), 80)
  for name in [name for name in world.searcher.entries if not name.startswith('test_')]:
    del world.searcher.entries[name]
  world.searcher.__init__(world.searcher.entries)
  return world


@pytest.fixture(scope='module')
def driver(tmp_path_factory):
  options = webdriver.ChromeOptions()
  options.binary_location = CHROMIUM
  for flag in (*FLAGS.split(), f'--user-data-dir={tmp_path_factory.mktemp("chromium")}'):
    options.add_argument(flag)
  options.set_capability('goog:loggingPrefs', {'browser': 'ALL', 'performance': 'ALL'})
  driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
  yield driver
  driver.quit()


@pytest.fixture
def page(driver, gallery):
  with serving_world.running(gallery.application) as port:
    page = Page(driver, f'http://127.0.0.1:{port}/')
    driver.get('about:blank')
    page.log(), page.requested()
    yield page
    assert page.log() == []  # no error, no warning, nothing that the policy refused
    addresses = page.requested()
    assert addresses
    assert {each for each in addresses if not each.startswith((page.address, 'about:', 'data:'))} == set()


def test_the_gallery_a_page_at_a_time(page, gallery):
  page.open()
  ids = gallery.searcher.ids(0, 100)
  assert page.shown() == ids[:60]
  assert page.text('.count') == '60 of 80 pictures'
  assert page.text('#about').startswith('80 pictures · scenes')
  page.wait_for("[...document.querySelectorAll('.grid img')].slice(0, 6).every((each) => each.naturalWidth > 0)")
  page.driver.find_element(By.CSS_SELECTOR, '.more button').click()
  page.wait_for("document.querySelectorAll('.grid a').length === 80")
  assert page.shown() == ids
  assert page.ask("new URL(document.activeElement.href).searchParams.get('id')") == ids[60]
  assert not page.all('.more')


def test_type_click_and_go_back(page, gallery):
  caption = gallery.searcher.item('test_0001a').captions[0]
  page.open()
  page.type(caption)
  assert page.ask("new URLSearchParams(location.search).get('text')") == caption
  found = [hit.id for hit in gallery.searcher.by_text(caption, 30)]
  assert page.shown() == found
  assert page.text('h1') == f'“{caption}”'
  assert page.text('.score').split()[-1] == f'{gallery.searcher.by_text(caption, 1)[0].score:.3f}'
  page.ask('window.scrollTo(0, 500)')
  page.wait_for('window.scrollY === 500')
  page.all('.grid a')[7].click()
  page.wait_for(f"document.querySelector('h1').textContent === {json.dumps(found[7])}")
  page.settle()
  captions = [each.text for each in page.all('.captions li')]
  assert tuple(captions) == gallery.searcher.item(found[7]).captions
  assert page.shown() == [hit.id for hit in gallery.searcher.by_id(found[7], 24)]
  assert page.ask('window.scrollY') == 0
  page.driver.back()
  page.wait_for("document.querySelector('h1').textContent.startsWith('“')")
  page.settle()
  assert page.shown() == found
  page.wait_for('window.scrollY === 500')  # where it was left
  assert page.ask("document.getElementById('text').value") == caption
  page.driver.back()
  page.wait_for("document.title === 'Picture search'")
  page.settle()
  assert len(page.shown()) == 60
  page.driver.forward()
  page.wait_for("document.title !== 'Picture search'")
  page.settle()
  assert page.shown() == found


def test_words_that_nobody_has_learnt_are_named(page):
  page.open()
  page.type('a <i>xylophone</i>')
  assert page.text('.count').endswith(' fit best, without words that the model has not learnt: i, xylophone, i')


def test_addresses_can_be_shared(page, gallery):
  page.open('?text=two%20dogs')
  assert page.shown() == [hit.id for hit in gallery.searcher.by_text('two dogs', 30)]
  page.open('?id=test_0002a')
  assert page.text('h1') == 'test_0002a'
  assert page.ask("document.querySelector('.large').complete")


def test_upload_and_back(page, gallery):
  path = gallery.searcher.item('test_0003a').picture
  page.open()
  page.driver.find_element(By.ID, 'file').send_keys(str(path))
  page.wait_for("location.search === '?upload=1'")
  page.settle()
  assert page.text('h1') == path.name
  assert page.shown()[0] == 'test_0003a'
  assert page.ask("document.querySelector('canvas').width") == 224
  page.all('.grid a')[1].click()
  page.wait_for("location.search.startsWith('?id=')")
  page.settle()
  page.driver.back()
  page.wait_for("document.querySelector('canvas')")
  page.settle()
  assert page.shown()[0] == 'test_0003a'
  page.driver.refresh()
  page.wait_for("document.querySelector('.nothing')")
  assert 'not kept' in page.text('.nothing')


def test_a_picture_that_is_dropped(page, gallery):
  page.open()
  picture = gallery.searcher.item('test_0004a').picture.read_bytes()
  script = """
    const data = new DataTransfer();
    data.items.add(new File([new Uint8Array(arguments[0])], 'dropped.png', { type: 'image/png' }));
    const options = { dataTransfer: data, bubbles: true, cancelable: true };
    const fire = (kind) => document.body.dispatchEvent(new DragEvent(kind, options));
    fire('dragenter');
    const isShown = !document.getElementById('drop').hidden;
    fire('dragover');
    fire('drop');
    return [isShown, document.getElementById('drop').hidden];
  """
  assert page.driver.execute_script(script, list(picture)) == [True, True]
  page.wait_for("document.querySelector('canvas')")
  page.settle()
  assert page.shown()[0] == 'test_0004a'


def test_markup_in_words_stays_words(page):
  page.open()
  page.type('<img src=x onerror=alert(1)> & "dogs"')
  assert page.text('h1') == '“<img src=x onerror=alert(1)> & "dogs"”'
  assert not page.all('h1 img')


def test_with_the_keyboard_only(page):
  page.open()
  page.driver.find_element(By.TAG_NAME, 'body').send_keys('/')
  active = page.driver.switch_to.active_element
  assert active.get_attribute('id') == 'text'
  active.send_keys('dogs' + Keys.ENTER)
  page.wait_for("document.title.startsWith('dogs')")
  page.settle()
  assert page.ask('document.activeElement.id') == 'main'  # the next Tab is the first picture
  page.driver.switch_to.active_element.send_keys(Keys.TAB)
  assert page.ask("document.activeElement.matches('.grid a')")
  assert page.ask('getComputedStyle(document.activeElement).outlineStyle') == 'solid'
  page.driver.switch_to.active_element.send_keys(Keys.ENTER)
  page.wait_for("location.search.startsWith('?id=')")


@pytest.mark.parametrize('scheme', ['light', 'dark'])
def test_light_and_dark(page, scheme):
  features = [{'name': 'prefers-color-scheme', 'value': scheme}]
  page.driver.execute_cdp_cmd('Emulation.setEmulatedMedia', {'features': features})
  page.open()
  colour = page.ask('getComputedStyle(document.body).backgroundColor')
  assert colour == {'light': 'rgb(251, 251, 250)', 'dark': 'rgb(19, 20, 22)'}[scheme]
  page.driver.execute_cdp_cmd('Emulation.setEmulatedMedia', {'features': []})


@pytest.mark.parametrize('query', ['', '?text=dogs', '?id=test_0002a', '?text=' + 'x' * 200])
def test_nothing_is_wider_than_a_phone(page, query):
  size = {'width': 360, 'height': 740, 'deviceScaleFactor': 1, 'mobile': True}
  page.driver.execute_cdp_cmd('Emulation.setDeviceMetricsOverride', size)
  page.open(query)
  assert page.ask('document.documentElement.scrollWidth') == 360
  buttons = "[...document.querySelectorAll('main a, button, input')].filter((each) => each.offsetHeight > 1)"
  heights = page.ask(f'{buttons}.map((each) => [each.outerHTML.slice(0, 60), each.offsetHeight])')
  assert [each for each in heights if each[1] < 30] == []  # of fingers
  page.driver.execute_cdp_cmd('Emulation.clearDeviceMetricsOverride', {})


def test_what_goes_wrong_is_said(driver, gallery, tmp_path):
  """Without the check of the log: the browser writes down every status of 400 and more."""
  (tmp_path / 'no picture.png').write_text('hello')
  with serving_world.running(gallery.application) as port:
    page = Page(driver, f'http://127.0.0.1:{port}/')
    page.open('?id=nobody')
    assert "no picture 'nobody'" in page.text('[role=alert]').lower()
    assert page.text('[role=alert] a') == 'All pictures'
    page.open()
    page.driver.find_element(By.ID, 'file').send_keys(str(tmp_path / 'no picture.png'))
    page.wait_for("document.querySelector('[role=alert]')")
    assert 'no picture that can be read' in page.text('[role=alert]').lower()
    page.open('?text=%3F')
    assert 'a query without words' in page.text('[role=alert]').lower()
  page.driver.find_element(By.ID, 'text').send_keys('dogs' + Keys.ENTER)
  page.wait_for("document.querySelector('[role=alert] button')")
  assert 'does not answer' in page.text('[role=alert]')
  page.log()
