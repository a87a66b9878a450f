"""An order and its reminder are committed together, or not at all (FastAPI).

pip install beatstore fastapi uvicorn && uvicorn orders:api --app-dir examples
"""

import os
from collections.abc import Iterator
from datetime import timedelta
from typing import Annotated

from celery import Celery
from fastapi import Depends, FastAPI, HTTPException
from sqlalchemy import create_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

import beatstore
from beatstore import EntryNotFoundError, Store

URL = os.environ.get("ORDERS_URL", "sqlite:///orders.db")

app = Celery("orders", broker=os.environ.get("ORDERS_BROKER", "memory://"))
app.conf.beatstore_url = URL
beatstore.setup(app)  # workers report how runs end

engine = create_engine(URL)
store = Store.from_app(app, engine=engine)
store.migrate()


class Base(DeclarativeBase):
    pass


class Order(Base):
    __tablename__ = "orders"

    id: Mapped[int] = mapped_column(primary_key=True)
    amount: Mapped[int]


Base.metadata.create_all(engine)


@app.task
def remind(order_id):
    print(f"order {order_id} is still unpaid")


def get_session() -> Iterator[Session]:
    with Session(engine) as session, session.begin():
        yield session  # committed when the request ends well, rolled back when it does not


api = FastAPI()


@api.post("/orders")
def place_order(amount: int, session: Annotated[Session, Depends(get_session, scope="function")]):
    order = Order(amount=amount)
    session.add(order)
    session.flush()
    store.schedule(
        remind.s(order.id), countdown=timedelta(days=3), name=f"remind-{order.id}", session=session
    )
    if amount <= 0:
        raise HTTPException(422, "an order costs something")  # neither row is there afterwards
    return {"order": order.id}


@api.post("/orders/{order_id}/paid")
def pay(order_id: int, session: Annotated[Session, Depends(get_session, scope="function")]):
    try:
        return {"reminder stopped in time": store.cancel(f"remind-{order_id}", session=session)}
    except EntryNotFoundError as error:
        raise HTTPException(404, f"order {order_id} has no reminder") from error
